# Isolates context: no re-weighting and no pooled branch, an FCN.
_base_ = '../cac_r50_pcontext59.py'
model = dict(decode_head=dict(reweighting='IdentityModule', global_pool=False))
