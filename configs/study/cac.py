_base_ = './_base_/protocol.py'
model = dict(decode_head=dict(type='CaCHead'))
