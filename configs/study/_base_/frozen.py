# Laid over a head's config: the head alone, 128 channels, on the features of
# the backbone with its ImageNet weights, computed once. For CPUs. The learning
# rate is the bare convolution's: see docs/study.md.
model = dict(
    pretrained=None,
    data_preprocessor=dict(
        _delete_=True, type='SegDataPreProcessor', size_divisor=1),
    backbone=dict(_delete_=True, type='StoredFeatures'),
    decode_head=dict(channels=128),
    auxiliary_head=None)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckLabels', num_classes=11),
    dict(type='Resize', scale=(240, 180)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='LoadFeatures'),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(240, 180)),
    dict(type='LoadFeatures'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.01, weight_decay=0.01))
param_scheduler = [
    dict(
        type='PolyLR',
        eta_min=1e-4,
        power=0.9,
        begin=0,
        end=400,
        by_epoch=False)
]
train_cfg = dict(max_iters=400, val_interval=200)
default_hooks = dict(checkpoint=dict(interval=200), logger=dict(interval=20))
