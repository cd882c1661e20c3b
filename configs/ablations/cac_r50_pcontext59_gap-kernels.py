# Isolates how kernels are predicted: from the pooled feature alone.
_base_ = '../cac_r50_pcontext59.py'
model = dict(decode_head=dict(reweighting='GAPKernelModule'))
