# LayerNorm in the pooled branch.
_base_ = './cac.py'
model = dict(decode_head=dict(pool_norm_cfg=dict(type='GN', num_groups=1)))
