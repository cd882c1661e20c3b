# Without the globally pooled branch.
_base_ = './cac.py'
model = dict(decode_head=dict(global_pool=False))
