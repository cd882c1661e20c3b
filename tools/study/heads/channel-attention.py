_base_ = './cac.py'
model = dict(decode_head=dict(reweighting='ChannelAttentionModule'))
