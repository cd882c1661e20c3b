_base_ = [
    './_base_/light.py', '../data/voc_animals.py',
    '../../../configs/_base_/default_runtime.py'
]
crop_size = (256, 256)
loading = [*_base_.train_pipeline[:2], dict(type='CheckLabels', num_classes=7)]
train_pipeline = [
    dict(type='LoadOnce', transforms=loading), *_base_.train_pipeline[2:]
]
train_pipeline[1].scale = (320, 320)
train_pipeline[2].crop_size = crop_size
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (320, 320)
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
