model = dict(decode_head=dict(type='ASPPHead', dilations='${atrous_rates}'))
