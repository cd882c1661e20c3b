# Crop, batch, schedule, optimiser and testing of mmseg's
# segformer_mit-b2_8xb1-160k_cityscapes-1024x1024. One image on each of 8 GPUs:
# on one GPU, set pool_norm_cfg=None, or a larger batch.
_base_ = [
    './_base_/models/cac_mit-b2.py', './_base_/datasets/cityscapes_1024.py',
    './_base_/default_runtime.py', './_base_/schedules/adamw_160k.py'
]
model = dict(
    data_preprocessor=dict(size=(1024, 1024)),
    test_cfg=dict(mode='slide', crop_size=(1024, 1024), stride=(768, 768)))
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            pos_block=dict(decay_mult=0.),
            norm=dict(decay_mult=0.),
            head=dict(lr_mult=10.))))
train_dataloader = dict(batch_size=1)
