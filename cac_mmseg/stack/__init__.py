"""What one has to know of mmengine, mmseg and files to stand on them.

Configs, checkpoints, labels, the environment. Nothing of CaC's maths.
"""
