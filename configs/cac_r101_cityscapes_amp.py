_base_ = './cac_r101_cityscapes.py'
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale=512.)
