model = dict(decode_head=dict(type='FCNHead', num_convs=2, concat_input=False))
