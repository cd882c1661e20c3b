# Four modules side by side.
_base_ = './cac.py'
model = dict(decode_head=dict(num_heads=4))
