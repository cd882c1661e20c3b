# Images of PASCAL VOC 2012, with the labels of SBD, that show cats, cows,
# dogs, horses, sheep or people; other classes are ignored. A part of an animal
# looks like a part of another: the class of a region depends on the rest.
dataset_type = 'PascalVOCDataset'
data_root = 'data/VOCdevkit/VOC2012'
lists = '{{ fileDirname }}/voc_animals'
metainfo = dict(
    classes=('background', 'cat', 'cow', 'dog', 'horse', 'person', 'sheep'))
data_prefix = dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug')
crop_size = (512, 512)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(2048, 512),
        ratio_range=(0.5, 2.0),
        keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    # after Resize: the ground truth keeps its size
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')
]
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=data_prefix,
        metainfo=metainfo,
        ann_file=f'{lists}/train.txt',
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=data_prefix,
        metainfo=metainfo,
        ann_file=f'{lists}/val.txt',
        pipeline=test_pipeline))
test_dataloader = val_dataloader
