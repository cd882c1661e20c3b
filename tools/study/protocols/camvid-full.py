_base_ = ['./_base_/full.py', '../../../configs/_base_/datasets/camvid.py']
model = dict(
    data_preprocessor=dict(size=(360, 480)),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11))
train_pipeline = [
    dict(type='LoadOnce', transforms=_base_.train_pipeline[:2]),
    *_base_.train_pipeline[2:]
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
