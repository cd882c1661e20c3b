model = dict(decode_head=dict(type='CaCHead'))
