_base_ = './schedule_80k.py'
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 160000
train_cfg = dict(max_iters=160000, val_interval=16000)
default_hooks = dict(checkpoint=dict(interval=16000))
