# To choose a learning rate: the training images alone, split in two.
_base_ = './voc-animals.py'
train_dataloader = dict(
    dataset=dict(ann_file=f'{_base_.lists}/tune_train.txt'))
val_dataloader = dict(dataset=dict(ann_file=f'{_base_.lists}/tune_val.txt'))
test_dataloader = val_dataloader
