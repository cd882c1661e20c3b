# As contextshapes, with a crossing, and a backbone of a quarter of its width.
# Schedule and learning rate are those with which PSPNet passes the additive
# bound from every seed.
_base_ = './contextshapes.py'
stage_channels = (16, 32)
model = dict(
    backbone=dict(base_channels=16, stem_channels=16),
    decode_head=dict(in_channels=32))
loading = dict(
    type='LoadOnce',
    transforms=[dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations')])
pipeline = [loading, dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=4,
    dataset=dict(type='CrossingDataset', num_images=1000, pipeline=pipeline))
val_dataloader = dict(dataset=dict(type='CrossingDataset', pipeline=pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.003))
train_cfg = dict(val_interval=50)
