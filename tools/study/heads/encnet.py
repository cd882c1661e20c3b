model = dict(
    decode_head=dict(
        type='EncHead',
        in_channels='${stage_channels}',
        in_index='${stage_indices}',
        num_codes=32,
        use_se_loss=True,
        add_lateral=False,
        loss_se_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.2)))
