model = dict(decode_head=dict(type='DMHead', filter_sizes=(1, 3, 5, 7)))
