# Full kernels from pooled features.
_base_ = './cac.py'
model = dict(decode_head=dict(reweighting='FCKernelModule'))
