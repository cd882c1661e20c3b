# The same with the background as a class of its own.
_base_ = './pcontext59.py'
dataset_type = 'PascalContextDataset'
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(type='CheckLabels', num_classes=60)
train_dataloader = dict(
    dataset=dict(type=dataset_type, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
