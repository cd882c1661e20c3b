# Crop, batch, schedule, optimiser and testing of mmseg's
# fcn_r50-d8_4xb4-80k_pascal-context-480x480.
_base_ = [
    './_base_/models/cac_r50-d8.py', './_base_/datasets/pcontext60.py',
    './_base_/default_runtime.py', './_base_/schedules/schedule_80k.py'
]
model = dict(
    data_preprocessor=dict(size=(480, 480)),
    decode_head=dict(num_classes=60),
    auxiliary_head=dict(num_classes=60),
    test_cfg=dict(mode='slide', crop_size=(480, 480), stride=(320, 320)))
optim_wrapper = dict(optimizer=dict(lr=0.004, weight_decay=0.0001))
