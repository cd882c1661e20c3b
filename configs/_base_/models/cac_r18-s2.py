# The first two stages of ResNet-18, output stride 8: a receptive field of 99
# pixels, so that far context has to come from the head.
norm_cfg = dict(type='BN', requires_grad=True)
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
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
        type='CaCHead',
        in_channels=128,
        in_index=0,
        channels=64,
        kernel_size=3,
        dilations=(1, 3, 5),
        share_kernels=False,
        num_heads=1,
        global_pool=True,
        reweighting='CaCModule',
        dropout_ratio=0.,
        num_classes=4,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss',
            use_sigmoid=False,
            loss_weight=1.0,
            class_weight=[0.2, 1.0, 1.0, 1.0])),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
