_base_ = [
    './_base_/light.py', '../../../configs/_base_/datasets/camvid.py',
    '../../../configs/_base_/default_runtime.py'
]
crop_size = (240, 320)
model = dict(
    data_preprocessor=dict(size=crop_size), decode_head=dict(num_classes=11))
train_pipeline = [
    dict(
        type='LoadOnce',
        transforms=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='CheckLabels', num_classes=11)
        ]),
    dict(
        type='RandomResize',
        scale=(480, 360),
        ratio_range=(0.5, 2.0),
        keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
