# Crop, batch, schedule, optimiser and testing of mmseg's
# fcn_r50-d8_4xb4-20k_voc12aug-512x512, on VOC without SBD.
_base_ = [
    './_base_/models/cac_r50-d8.py', './_base_/datasets/voc12.py',
    './_base_/default_runtime.py', './_base_/schedules/schedule_20k.py'
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=21),
    auxiliary_head=dict(num_classes=21))
