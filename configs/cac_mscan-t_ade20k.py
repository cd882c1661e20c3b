# Crop, batch, schedule, optimiser and testing of mmseg's
# segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.
_base_ = [
    './_base_/models/cac_pyramid.py', './_base_/datasets/ade20k.py',
    './_base_/default_runtime.py', './_base_/schedules/adamw_160k.py'
]
model = dict(
    data_preprocessor=dict(size=(512, 512), test_cfg=dict(size_divisor=32)),
    backbone=dict(
        type='MSCAN',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmsegmentation/v0.5/'
            'pretrain/segnext/mscan_t_20230227-119e8c9f.pth'),
        embed_dims=[32, 64, 160, 256],
        mlp_ratios=[8, 8, 4, 4],
        drop_rate=0.0,
        drop_path_rate=0.1,
        depths=[3, 3, 5, 2],
        attention_kernel_sizes=[5, [1, 7], [1, 11], [1, 21]],
        attention_kernel_paddings=[2, [0, 3], [0, 5], [0, 10]],
        act_cfg=dict(type='GELU'),
        norm_cfg=dict(type='BN', requires_grad=True)),
    decode_head=dict(in_channels=[64, 160, 256], num_classes=150))
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            pos_block=dict(decay_mult=0.),
            norm=dict(decay_mult=0.),
            head=dict(lr_mult=10.))))
train_dataloader = dict(batch_size=16)
