_base_ = './cac.py'
model = dict(decode_head=dict(num_heads=4))
