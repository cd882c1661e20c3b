# Isolates the number of modules side by side: 2.
_base_ = '../cac_r50_pcontext59.py'
model = dict(decode_head=dict(num_heads=2))
