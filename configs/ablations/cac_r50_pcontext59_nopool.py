# Isolates the globally pooled branch: left out.
_base_ = '../cac_r50_pcontext59.py'
model = dict(decode_head=dict(global_pool=False))
