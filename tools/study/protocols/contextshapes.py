# In minutes on a CPU, without a file: two stages of ResNet-18, whose receptive
# field does not reach what decides, so that context has to come from the head.
_base_ = [
    '../../../configs/_base_/models/cac_r18-s2.py',
    '../../../configs/_base_/datasets/contextshapes.py',
    '../../../configs/_base_/default_runtime.py',
    '../../../configs/_base_/schedules/schedule_400.py'
]
stage_channels, stage_indices = (64, 128), (0, 1)
atrous_rates = (1, 12, 24, 36)
model = dict(
    data_preprocessor=dict(size=(128, 192)),
    backbone=dict(out_indices=(0, 1)),
    decode_head=dict(
        _delete_=True,
        in_channels=128,
        in_index=1,
        channels=64,
        dropout_ratio=0.,
        num_classes=4,
        norm_cfg={{_base_.norm_cfg}},
        align_corners=False,
        loss_decode={{_base_.model.decode_head.loss_decode}}))
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
