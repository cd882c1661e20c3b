# Kernels start at zero, and each weight at 1.5: the scale of their
# normalisation is learned from 0.
_base_ = './cac.py'
model = dict(
    decode_head=dict(
        reweighting=dict(
            type='CaCModule',
            init_cfg=dict(type='Constant', layer='_BatchNorm', val=0))))
