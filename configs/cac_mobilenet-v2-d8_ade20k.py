# Crop, batch, schedule, optimiser and testing of mmseg's
# mobilenet-v2-d8_fcn_4xb4-160k_ade20k-512x512.
_base_ = [
    './_base_/models/cac_mobilenet-v2-d8.py', './_base_/datasets/ade20k.py',
    './_base_/default_runtime.py', './_base_/schedules/schedule_160k.py'
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150))
