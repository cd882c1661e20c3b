# For a GPU: ResNet-50-D8 with the heads at the width of mmseg's configs.
_base_ = [
    '../../../../configs/_base_/models/cac_r50-d8.py',
    '../../../../configs/_base_/schedules/schedule_10k.py',
    '../../../../configs/_base_/default_runtime.py'
]
stage_channels, stage_indices = (512, 1024, 2048), (1, 2, 3)
atrous_rates = (1, 12, 24, 36)
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(
        _delete_=True,
        in_channels=2048,
        in_index=3,
        channels=512,
        dropout_ratio=0.1,
        num_classes=7,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=dict(num_classes=7))
