# Crop, batch, schedule, optimiser and testing of mmseg's
# mobilenet-v2-d8_fcn_4xb2-80k_cityscapes-512x1024.
_base_ = [
    './_base_/models/cac_mobilenet-v2-d8.py',
    './_base_/datasets/cityscapes.py', './_base_/default_runtime.py',
    './_base_/schedules/schedule_80k.py'
]
model = dict(data_preprocessor=dict(size=(512, 1024)))
