# Without the globally pooled branch: no context of the whole image at all.
_base_ = './fixed-kernels.py'
model = dict(decode_head=dict(global_pool=False))
