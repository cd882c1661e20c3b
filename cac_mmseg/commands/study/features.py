"""The features of a frozen backbone, computed once and read by every run.

A head can then be trained on a CPU: what comes before it, which is the same
for all heads, costs nothing.
"""
from hashlib import sha256
from pathlib import Path
from typing import List, Tuple

import mmcv
import numpy as np
import torch
import torch.nn as nn
from mmcv.transforms import BaseTransform
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS, TRANSFORMS
from rich.progress import track
from torch import Tensor

from ...hooks.preflight import check_pretrained
from ...utils.config import build_datasets, dataset_configs
from ...utils.files import make_folder, new_file

STAGES = 4


@MODELS.register_module()
class StoredFeatures(nn.Module):
    """In a backbone's place: what is read is its last stage already."""

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Return x (B, C, H, W) as every stage; heads look at the last."""
        return (x, ) * STAGES


@TRANSFORMS.register_module()
class LoadFeatures(BaseTransform):
    """Put the stored features of an image in its place.

    After ``LoadImageFromFile`` and ``Resize``, and after ``RandomFlip``, whose
    mirrored image has features of its own.

    Args:
        folder: Where :func:`store_features` has put them; the study fills it.
    """

    def __init__(self, folder: str = '') -> None:
        self.folder = folder

    def transform(self, results: dict) -> dict:
        """Replace ``img`` by an array (H, W, C), float16."""
        stored = np.load(
            _file(self.folder, results['img_path']), mmap_mode='r')
        results['img'] = np.array(stored[int(results.get('flip', False))])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(folder={self.folder!r})'


def _file(folder: str, image: str) -> Path:
    # train and val may have images of the same name
    return Path(folder, Path(image).parent.name, f'{Path(image).stem}.npy')


def loaders(config: Config) -> List[ConfigDict]:
    """Return the ``LoadFeatures`` steps of a config, to be filled in."""
    return [
        step for split in ('train', 'val', 'test')
        for dataset in dataset_configs(config, split)
        for step in dataset.pipeline if step.type == 'LoadFeatures'
    ]


def folder_name(full_config: Config, heads: Config) -> str:
    """Name a folder after the backbone, its weights, the data and its size."""
    dataset = next(dataset_configs(heads, 'val'))
    parts = (full_config.model.backbone, full_config.model.get('pretrained'),
             full_config.model.data_preprocessor, dataset.get('data_root'),
             [step for step in dataset.pipeline if step.type == 'Resize'])
    return f'features-{sha256(repr(parts).encode()).hexdigest()[:8]}'


def store_features(full_config: Config, heads: Config, out: Path) -> None:
    """Run the backbone of a config over the data that its head trains on.

    Args:
        full_config: Configures the backbone and its weights.
        heads: Configures the data, with ``LoadFeatures`` in its pipelines,
            which name the folder.
        out: Gets that folder with a file per image, (1, H, W, C) in float16,
            of training (2, H, W, C): as it is, and mirrored. What is there
            stays.

    Raises:
        FileNotFoundError: If the data set is not there.
        ValueError: If it cannot be built, or the weights of the backbone
            cannot be loaded.
    """
    folder, todo = str(out / loaders(heads)[0].folder), []
    for split in ('train', 'val'):
        for cfg, dataset in zip(
                dataset_configs(heads, split), build_datasets(heads, split)):
            before = Compose([
                step for step in cfg.pipeline
                if step.type in ('LoadImageFromFile', 'Resize')
            ])
            mirrored = any(step.type == 'RandomFlip' for step in cfg.pipeline)
            for i in range(len(dataset)):
                info = dataset.get_data_info(i)
                file = _file(folder, info['img_path'])
                if not file.is_file():
                    todo.append((file, before, info, 1 + mirrored))
    if not todo:
        return
    backbone = _Backbone(full_config)
    for file, before, info, copies in track(
            todo, 'features', show_speed=False):
        image = before(info)['img']
        images = [image, mmcv.imflip(image)][:copies]
        stored = backbone(images).permute(0, 2, 3, 1).half().cpu().numpy()
        make_folder(file.parent)
        with new_file(file) as new:
            np.save(new, stored)


def build_model(config: Config) -> BaseSegmentor:
    """Build the model of a config, whose backbone's weights can be loaded.

    Raises:
        ValueError: If they cannot; says what to do.
    """
    model = MODELS.build(config.model)
    try:
        check_pretrained(model)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return model


class _Backbone:
    """A segmentor up to the last stage of its backbone, for evaluation."""

    def __init__(self, config: Config) -> None:
        torch.manual_seed(0)  # for weights that are not loaded
        self.model = revert_sync_batchnorm(build_model(config))
        # mmengine would list every parameter
        MMLogger.get_instance('cac_mmseg.commands.study', log_level='WARNING')
        self.model.init_weights()
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.model.to(device).eval()

    @torch.no_grad()
    def __call__(self, images: List[np.ndarray]) -> Tensor:
        """Map images (H, W, 3) to features (B, C, h, w)."""
        inputs = [
            torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            for image in images
        ]
        data = self.model.data_preprocessor(dict(inputs=inputs))
        return self.model.extract_feat(data['inputs'])[-1]
