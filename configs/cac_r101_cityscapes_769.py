_base_ = './cac_r50_cityscapes_769.py'
model = dict(pretrained='open-mmlab://resnet101_v1c', backbone=dict(depth=101))
