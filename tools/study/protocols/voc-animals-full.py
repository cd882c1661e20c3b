_base_ = ['./_base_/full.py', '../data/voc_animals.py']
# decoded once, so that few workers keep a GPU busy
train_pipeline = [
    dict(type='LoadOnce', transforms=_base_.train_pipeline[:2]),
    *_base_.train_pipeline[2:]
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
