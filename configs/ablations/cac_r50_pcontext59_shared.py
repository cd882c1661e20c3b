# Isolates the separate kernel sets: one set for all dilations.
_base_ = '../cac_r50_pcontext59.py'
model = dict(decode_head=dict(share_kernels=True))
