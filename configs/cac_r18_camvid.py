# Small enough for a CPU: ResNet-18 from scratch, small crops, 1000 iterations.
_base_ = './cac_r50_camvid.py'
crop_size = (192, 256)
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=crop_size),
    backbone=dict(depth=18),
    decode_head=dict(in_channels=512, channels=128),
    auxiliary_head=dict(in_channels=256, channels=64))
train_pipeline = _base_.train_pipeline
train_pipeline[2].ratio_range = (0.5, 1.0)
train_pipeline[3].crop_size = crop_size
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.0005, weight_decay=0.01))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(eta_min=1e-5, end=1000)
train_cfg = dict(max_iters=1000, val_interval=500)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=500))
