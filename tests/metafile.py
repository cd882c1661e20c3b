"""Write ``configs/metafile.yml``, what ``mim search`` knows of each config.

``python tests/metafile.py`` after adding a config; a test compares the two.
"""
import math
from pathlib import Path

import yaml
from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
METAFILE = CONFIGS / 'metafile.yml'
COLLECTION = 'CaC-Net'
DATA = dict(
    ADE20KDataset='ADE20K',
    PascalContextDataset='Pascal Context',
    PascalContextDataset59='Pascal Context 59',
    PascalVOCDataset='Pascal VOC 2012')


def names() -> list:
    """Return the configs that are meant to be run, such as study/cac."""
    return sorted(
        str(path.relative_to(CONFIGS).with_suffix(''))
        for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)


def training_data(config: Config) -> str:
    """Name the data set that a config trains on."""
    dataset = config.train_dataloader.dataset
    first = dataset.get('datasets', [dataset])[0].type
    name = DATA.get(first, first.removesuffix('Dataset'))
    return f'{name} + Aug' if 'datasets' in dataset else name


def architecture(config: Config) -> list:
    """Name backbone, with its output stride, and head."""
    backbone, head = config.model.backbone, config.model.decode_head
    name, stem = backbone.type.removeprefix('mmpretrain.'), 2
    if 'ResNet' in backbone.type:
        name, stem = f'R-{backbone.depth}', 4
    if 'dilations' in backbone and len(backbone.out_indices) == 4:
        name += f'-D{stem * math.prod(backbone.strides)}'
    if head.type != 'CaCHead':
        return [name, head.type.removesuffix('Head')]
    plain = head.get('reweighting') == 'IdentityModule'
    bare = plain and not head.get('global_pool', True)
    return [name, 'FCN' if bare else COLLECTION]


def metafile() -> str:
    """Return the whole file."""
    models = []
    for name in names():
        # without packages that a backbone needs
        config = Config.fromfile(
            CONFIGS / f'{name}.py', import_custom_modules=False)
        models.append({
            'Name': Path(name).name,
            'In Collection': COLLECTION,
            'Config': f'configs/{name}.py',
            'Metadata': {
                'Training Data': training_data(config),
                'Architecture': architecture(config)
            }
        })
    data = dict.fromkeys(m['Metadata']['Training Data'] for m in models)
    collection = {
        'Name': COLLECTION,
        'License': 'Apache License 2.0',
        'Metadata': {
            'Training Data': [*data]
        },
        'Paper': {
            'Title': 'Learning to Predict Context-adaptive Convolution for '
            'Semantic Segmentation',
            'URL': 'https://arxiv.org/abs/2004.08222'
        },
        'README': 'README.md',
        'Frameworks': ['PyTorch']
    }
    return yaml.safe_dump(
        dict(Collections=[collection], Models=models),
        sort_keys=False,
        width=79)


if __name__ == '__main__':
    METAFILE.write_text(metafile())
