# As cac_pyramid, with a second loss.
_base_ = './cac_aux.py'
model = dict(
    pretrained=None,
    decode_head=dict(
        in_index=[1, 2, 3], input_transform='resize_concat', channels=256),
    auxiliary_head=dict(in_channels=384))
