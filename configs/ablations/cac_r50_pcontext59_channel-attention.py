# Isolates spatial variation: one weight per channel for all positions.
_base_ = '../cac_r50_pcontext59.py'
model = dict(decode_head=dict(reweighting='ChannelAttentionModule'))
