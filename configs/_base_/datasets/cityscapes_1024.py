_base_ = './cityscapes.py'
crop_size = (1024, 1024)
train_pipeline = _base_.train_pipeline
train_pipeline[3].crop_size = crop_size
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
