"""Hooks that draw predictions and weighting maps after a validation."""
import os.path as osp
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from ..utils.checks import check_int
from ..visualization.context import context_modules
from ..visualization.reader import read_image

TITLES = ('image', 'ground truth', 'prediction')
Row = Tuple[np.ndarray, Optional[np.ndarray], np.ndarray]


@HOOKS.register_module()
class PredictionPictureHook(Hook):
    """Save image, ground truth and prediction side by side.

    After each validation (test), a row for each of a few samples, spread over
    the data set, goes to ``<work_dir>/val_prediction.png``
    (``test_prediction.png``) and to the visualizer's backends. The log names
    the file beside the mIoU. mmseg's ``SegVisualizationHook`` writes a picture
    per image, without legend, and only with ``draw=True``.

    Args:
        num_images: Rows of the picture.
    """
    priority = 'VERY_LOW'  # its line is the last one that a user reads

    def __init__(self, num_images: int = 4) -> None:
        self.num_images = check_int('num_images', num_images)
        self.rows: List[Row] = []

    def _after_iter(self,
                    runner: Runner,
                    batch_idx: int,
                    data_batch: Optional[dict] = None,
                    outputs: Optional[Sequence[SegDataSample]] = None,
                    mode: str = 'train') -> None:
        if mode == 'train' or not is_main_process():
            return
        # spread over the data, as neighbours are often frames of one video
        batches = len(getattr(runner, f'{mode}_dataloader'))
        if batch_idx % max(1, batches // self.num_images):
            return
        room = self.num_images - len(self.rows)
        for sample in outputs[:min(room, -(-self.num_images // batches))]:
            image = read_image(sample.img_path)
            truth = (
                sample.gt_sem_seg.data[0].cpu().numpy()
                if 'gt_sem_seg' in sample else None)
            prediction = sample.pred_sem_seg.data[0].cpu().numpy()
            self.rows.append((image, truth, prediction))

    def after_val_epoch(self,
                        runner: Runner,
                        metrics: Optional[Dict[str, float]] = None) -> None:
        self._save(runner, metrics, 'val')

    def after_test_epoch(self,
                         runner: Runner,
                         metrics: Optional[Dict[str, float]] = None) -> None:
        self._save(runner, metrics, 'test')

    def _save(self, runner: Runner, metrics: Optional[Dict[str, float]],
              mode: str) -> None:
        if not self.rows:
            return
        # here, so that a training that draws nothing loads no matplotlib
        from ..visualization.draw import draw_rows, save_picture
        picture = draw_rows(self.rows, TITLES, runner.visualizer.dataset_meta)
        self.rows = []
        path = osp.join(runner.work_dir, f'{mode}_prediction.png')
        save_picture(picture, path)
        runner.visualizer.add_image(f'{mode}_prediction', picture, runner.iter)
        score = (metrics or {}).get('mIoU')
        runner.logger.info(
            ('' if score is None else f'{mode} mIoU {score:.2f}, ') +
            f'picture: {path}')


@HOOKS.register_module()
class WeightingMapsHook(Hook):
    """Send pages with the weighting maps to the visualizer's backends.

    After each validation, the pages of ``python -m cac_mmseg visualize`` for
    the first images of the data set go to the config's ``vis_backends``:
    files, TensorBoard, Weights & Biases. To turn it on:
    ``default_hooks = dict(weighting_maps=dict(type='WeightingMapsHook'))``.

    Args:
        num_images: How many pages.
        num_channels: Rows of a page.

    Raises:
        ValueError: When the run starts, if no module of the model predicts
            depth-wise kernels.
    """
    priority = 'VERY_LOW'

    def __init__(self, num_images: int = 1, num_channels: int = 4) -> None:
        self.num_images = check_int('num_images', num_images)
        self.num_channels = check_int('num_channels', num_channels)

    def before_run(self, runner: Runner) -> None:
        if not context_modules(runner.model):
            raise ValueError(
                'WeightingMapsHook has nothing to show: the model '
                'has no CaCModule. Remove it from the config')

    def after_val_iter(
            self,
            runner: Runner,
            batch_idx: int,
            data_batch: Optional[dict] = None,
            outputs: Optional[Sequence[SegDataSample]] = None) -> None:
        if not is_main_process():
            return
        from ..visualization.page import page  # loads matplotlib
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        for i, output in enumerate(outputs):
            # not len(outputs): the last batch may be smaller
            index = batch_idx * runner.val_dataloader.batch_size + i
            if index >= self.num_images:
                return
            data = {key: value[i:i + 1] for key, value in data_batch.items()}
            picture = page(model, data, output, runner.visualizer.dataset_meta,
                           self.num_channels)
            runner.visualizer.add_image(f'weighting_maps_{index}', picture,
                                        runner.iter)
