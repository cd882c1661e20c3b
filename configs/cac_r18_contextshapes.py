# Trains in minutes on two CPU cores, from scratch and without any file.
_base_ = [
    './_base_/models/cac_r18-s2.py', './_base_/datasets/contextshapes.py',
    './_base_/default_runtime.py', './_base_/schedules/schedule_400.py'
]
model = dict(data_preprocessor=dict(size=(128, 192)))
randomness = dict(seed=0)
# its signals and cars are of one size: flips only
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[[
            dict(type='RandomFlip', prob=0., direction='horizontal'),
            dict(type='RandomFlip', prob=1., direction='horizontal')
        ], [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]])
]
