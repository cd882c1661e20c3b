_base_ = './_base_/{{$CAC_STUDY_PROTOCOL:voc-animals}}.py'
model = dict(
    decode_head=dict(
        type='EncHead',
        in_channels={{_base_.stage_channels}},
        in_index={{_base_.stage_indices}},
        num_codes=32,
        use_se_loss=True,
        add_lateral=False,
        loss_se_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.2)))
