_base_ = [
    './_base_/models/cac_r50-d8.py', './_base_/datasets/camvid.py',
    './_base_/default_runtime.py', './_base_/schedules/schedule_10k.py'
]
model = dict(
    data_preprocessor=dict(size=(360, 480)),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11))
