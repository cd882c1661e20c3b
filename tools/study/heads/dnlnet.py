model = dict(
    decode_head=dict(
        type='DNLHead', reduction=2, use_scale=True, mode='embedded_gaussian'))
