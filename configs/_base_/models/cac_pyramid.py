# For backbones with maps of strides 4 to 32, whose config gives the backbone
# and the channels of its last three maps. They are resized to stride 8, the
# paper's, and concatenated.
norm_cfg = dict(type='SyncBN', requires_grad=True)
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
    pretrained=None,
    decode_head=dict(
        type='CaCHead',
        in_index=[1, 2, 3],
        input_transform='resize_concat',
        channels=256,
        kernel_size=3,
        dilations=(1, 3, 5),
        share_kernels=False,
        num_heads=1,
        global_pool=True,
        reweighting='CaCModule',
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
