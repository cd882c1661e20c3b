model = dict(
    decode_head=dict(
        type='GCHead',
        ratio=1 / 4.,
        pooling_type='att',
        fusion_types=('channel_add', )))
