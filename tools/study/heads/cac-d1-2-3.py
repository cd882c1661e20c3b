# Smaller dilations, for a map at output stride 16.
_base_ = './cac.py'
model = dict(decode_head=dict(dilations=(1, 2, 3)))
