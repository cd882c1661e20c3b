# Images of PASCAL VOC 2012, with the labels of SBD, that show cats, cows,
# dogs, horses, sheep or people; other classes are ignored. A part of an animal
# looks like a part of another: the class of a region depends on the rest.
_base_ = '../../../configs/_base_/datasets/photographs.py'
lists = '{{ fileDirname }}/voc_animals'
data = dict(
    type='PascalVOCDataset',
    data_root='data/VOCdevkit/VOC2012',
    data_prefix=dict(
        img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
    metainfo=dict(
        classes=('background', 'cat', 'cow', 'dog', 'horse', 'person',
                 'sheep')))
train_dataloader = dict(
    batch_size=8, dataset=dict(**data, ann_file=f'{lists}/train.txt'))
val_dataloader = dict(dataset=dict(**data, ann_file=f'{lists}/val.txt'))
test_dataloader = val_dataloader
