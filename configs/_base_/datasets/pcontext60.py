# The same with the background as a class of its own.
_base_ = './pcontext59.py'
dataset_type = 'PascalContextDataset'
train_dataloader = dict(dataset=dict(type=dataset_type))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
