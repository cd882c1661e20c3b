# Isolates depth-wise kernels: full ones from an FC layer, 128 channels.
_base_ = '../cac_r50_pcontext59.py'
model = dict(decode_head=dict(reweighting='FCKernelModule', channels=128))
