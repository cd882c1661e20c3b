_base_ = [
    './_base_/light.py', '../../../configs/_base_/datasets/camvid.py',
    '../../../configs/_base_/default_runtime.py'
]
crop_size = (240, 320)
model = dict(
    data_preprocessor=dict(size=crop_size), decode_head=dict(num_classes=11))
loading = [
    *_base_.train_pipeline[:2],
    dict(type='CheckLabels', num_classes=11)
]
train_pipeline = [
    dict(type='LoadOnce', transforms=loading), *_base_.train_pipeline[2:]
]
train_pipeline[2].crop_size = crop_size
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
