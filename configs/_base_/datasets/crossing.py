# ContextShapes with pedestrians, who wait while cars drive.
_base_ = './contextshapes.py'
train_dataloader = dict(dataset=dict(type='CrossingDataset'))
val_dataloader = dict(dataset=dict(type='CrossingDataset'))
test_dataloader = val_dataloader
