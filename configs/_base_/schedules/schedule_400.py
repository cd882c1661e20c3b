# For ContextShapes: minutes on a CPU.
_base_ = './schedule_80k.py'
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.001, weight_decay=0.0005))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(eta_min=1e-5, end=400)
train_cfg = dict(max_iters=400, val_interval=200)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=200))
