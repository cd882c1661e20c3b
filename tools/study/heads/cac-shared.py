# One kernel set for all dilations.
_base_ = './cac.py'
model = dict(decode_head=dict(share_kernels=True))
