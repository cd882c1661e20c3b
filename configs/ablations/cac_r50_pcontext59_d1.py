# Isolates the dilated branches: dilation 1 alone.
_base_ = '../cac_r50_pcontext59.py'
model = dict(decode_head=dict(dilations=(1, )))
