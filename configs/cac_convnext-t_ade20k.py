# Crop, batch, schedule, optimiser and testing of mmseg's
# convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.
_base_ = [
    './_base_/models/cac_pyramid_aux.py', './_base_/datasets/ade20k.py',
    './_base_/default_runtime.py', './_base_/schedules/adamw_160k.py'
]
custom_imports = dict(imports=['cac_mmseg', 'cac_mmseg.stack.mmpretrain'])
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        type='mmpretrain.ConvNeXt',
        arch='tiny',
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/'
            'convnext/downstream/convnext-tiny_3rdparty_32xb128-noema_in1k_'
            '20220301-795e9634.pth',
            prefix='backbone.')),
    decode_head=dict(
        in_channels=[192, 384, 768], channels=512, num_classes=150),
    auxiliary_head=dict(num_classes=150),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
# the first map, which has a norm of its own, is not read
find_unused_parameters = True
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(lr=0.0001, weight_decay=0.05),
    paramwise_cfg=dict(decay_rate=0.9, decay_type='stage_wise', num_layers=6),
    constructor='LearningRateDecayOptimizerConstructor',
    loss_scale='dynamic')
train_dataloader = dict(batch_size=2)
