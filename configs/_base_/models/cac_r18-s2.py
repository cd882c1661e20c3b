# The first two stages of ResNet-18, output stride 8: a receptive field of 99
# pixels, so that far context has to come from the head.
_base_ = './cac.py'
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(
        type='ResNet',
        depth=18,
        num_stages=2,
        out_indices=(1, ),
        dilations=(1, 1),
        strides=(1, 2),
        norm_cfg=norm_cfg,
        zero_init_residual=False),
    decode_head=dict(
        in_channels=128,
        in_index=0,
        channels=64,
        dropout_ratio=0.,
        num_classes=4,
        norm_cfg=norm_cfg,
        loss_decode=dict(class_weight=[0.2, 1.0, 1.0, 1.0])))
