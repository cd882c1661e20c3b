# In mixed precision, as mmseg's
# fcn_r101-d8_4xb2-amp-80k_cityscapes-512x1024.
_base_ = './cac_r101_cityscapes.py'
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale=512.)
