# Isolates the kernel size: 7 in place of 3.
_base_ = '../cac_r50_pcontext59.py'
model = dict(decode_head=dict(kernel_size=7))
