_base_ = './_base_/protocol.py'
model = dict(decode_head=dict(type='ASPPHead', dilations=(1, 12, 24, 36)))
