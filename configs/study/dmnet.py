_base_ = './_base_/protocol.py'
model = dict(decode_head=dict(type='DMHead', filter_sizes=(1, 3, 5, 7)))
