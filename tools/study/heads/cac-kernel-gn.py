# Kernels normalised image by image: all channels of a set together.
_base_ = './cac.py'
model = dict(
    decode_head=dict(
        reweighting=dict(
            type='CaCModule', norm_cfg=dict(type='GN', num_groups=3))))
