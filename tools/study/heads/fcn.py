model = dict(decode_head=dict(type='FCNHead', num_convs=1, concat_input=False))
