# Larger kernels.
_base_ = './cac.py'
model = dict(decode_head=dict(kernel_size=5))
