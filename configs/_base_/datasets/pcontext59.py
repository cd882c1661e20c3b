# reduce_zero_label: the data set class sets it, LoadAnnotations follows it.
_base_ = './photographs.py'
dataset_type = 'PascalContextDataset59'
data_root = 'data/VOCdevkit/VOC2010'
data_prefix = dict(
    img_path='JPEGImages', seg_map_path='SegmentationClassContext')
crop_size = (480, 480)
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (520, 520)
train_pipeline[3].crop_size = crop_size
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (520, 520)
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=data_prefix,
        ann_file='ImageSets/SegmentationContext/train.txt',
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=data_prefix,
        ann_file='ImageSets/SegmentationContext/val.txt',
        pipeline=test_pipeline))
test_dataloader = val_dataloader
