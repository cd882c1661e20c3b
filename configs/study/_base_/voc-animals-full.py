_base_ = ['./full.py', '../../_base_/datasets/voc_animals.py']
