# For backbones with maps of strides 4 to 32, whose config gives the backbone
# and the channels of its last three maps. They are resized to stride 8, the
# paper's, and concatenated.
_base_ = './cac.py'
model = dict(
    pretrained=None,
    decode_head=dict(
        in_index=[1, 2, 3], input_transform='resize_concat', channels=256))
