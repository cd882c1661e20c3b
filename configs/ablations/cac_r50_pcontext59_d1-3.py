# Isolates the widest branch: dilations 1 and 3 without 5.
_base_ = '../cac_r50_pcontext59.py'
model = dict(decode_head=dict(dilations=(1, 3)))
