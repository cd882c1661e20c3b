# Crop, batch, schedule, optimiser and testing of mmseg's
# segformer_mit-b2_8xb2-160k_ade20k-512x512.
_base_ = [
    './_base_/models/cac_mit-b2.py', './_base_/datasets/ade20k.py',
    './_base_/default_runtime.py', './_base_/schedules/adamw_160k.py'
]
model = dict(
    data_preprocessor=dict(size=(512, 512)), decode_head=dict(num_classes=150))
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            pos_block=dict(decay_mult=0.),
            norm=dict(decay_mult=0.),
            head=dict(lr_mult=10.))))
train_dataloader = dict(batch_size=2)
