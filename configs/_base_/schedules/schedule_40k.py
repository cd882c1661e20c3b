_base_ = './schedule_80k.py'
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 40000
train_cfg = dict(max_iters=40000, val_interval=4000)
default_hooks = dict(checkpoint=dict(interval=4000))
