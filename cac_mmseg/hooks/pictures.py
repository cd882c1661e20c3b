"""Hooks that draw predictions and weighting maps after a validation."""
import os.path as osp
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample
from torch.utils.data import DataLoader

from ..attribution.context import context_modules
from ..checks import check_int
from ..drawing.reader import Reader, label_map
from ..stack.config import unwrapped
from ..stack.words import counted

TITLES = ('image', 'ground truth', 'prediction')
Row = Tuple[np.ndarray, Optional[np.ndarray], np.ndarray]


class PictureHook(Hook):
    """A hook that draws on the main process, and never ends a run.

    Args:
        num_images: How many images are drawn.
    """
    priority = 'VERY_LOW'  # its line is the last one that a user reads

    def __init__(self, num_images: int) -> None:
        self.num_images = check_int('num_images', num_images)
        self.failed = False

    @contextmanager
    def drawing(self, runner: Runner) -> Iterator[None]:
        """Warn of an error once, and draw no more."""
        try:
            yield
        except Exception as error:  # of any reader, model and backend
            self.failed = True
            runner.logger.warning(
                f'{type(self).__name__} draws no more pictures: '
                f'{type(error).__name__}: {error}')

    def idle(self) -> bool:
        return self.failed or not is_main_process()


def read_rgb(dataset: Any, path: str) -> np.ndarray:
    """Read an image of a data set as its pipeline does."""
    for part in unwrapped(dataset):
        for index in range(len(part)):
            info = part.get_data_info(index)
            if info.get('img_path') == path:
                return Reader(part).load(info).rgb
    raise ValueError(f'{path} is not in the data set')


@HOOKS.register_module()
class PredictionPictureHook(PictureHook):
    """Save image, ground truth and prediction side by side.

    After each validation (test), a row for each of a few samples, spread over
    the data set, goes to ``<work_dir>/val_prediction.png``
    (``test_prediction.png``) and to the visualizer's backends. The log names
    the file beside the mIoU. mmseg's ``SegVisualizationHook`` writes a picture
    per image, without legend, and only with ``draw=True``.

    Args:
        num_images: Rows of the picture.
    """

    def __init__(self, num_images: int = 4) -> None:
        super().__init__(num_images)
        self.rows: List[Row] = []

    def _after_iter(self,
                    runner: Runner,
                    batch_idx: int,
                    data_batch: Optional[dict] = None,
                    outputs: Optional[Sequence[SegDataSample]] = None,
                    mode: str = 'train') -> None:
        if mode == 'train' or self.idle():
            return
        with self.drawing(runner):
            self._add_rows(
                getattr(runner, f'{mode}_dataloader'), batch_idx, outputs)

    def _add_rows(self, loader: DataLoader, batch_idx: int,
                  outputs: Sequence[SegDataSample]) -> None:
        # spread over the data, as neighbours are often frames of one video
        batches = len(loader)
        if batch_idx % max(1, batches // self.num_images):
            return
        room = self.num_images - len(self.rows)
        for sample in outputs[:min(room, -(-self.num_images // batches))]:
            truth = (
                label_map(sample.gt_sem_seg)
                if 'gt_sem_seg' in sample else None)
            self.rows.append((read_rgb(loader.dataset, sample.img_path), truth,
                              label_map(sample.pred_sem_seg)))

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
        rows, self.rows = self.rows, []
        if self.idle() or not rows:
            return
        with self.drawing(runner):
            self._draw(runner, rows, metrics, mode)

    def _draw(self, runner: Runner, rows: List[Row],
              metrics: Optional[Dict[str, float]], mode: str) -> None:
        # here, so that a training that draws nothing loads no matplotlib
        from ..drawing.draw import draw_rows, save_picture
        score = (metrics or {}).get('mIoU')
        caption = mode
        if runner.iter:  # 0 where a checkpoint is tested
            caption += f' after {counted(runner.iter, "iteration")}'
        if score is not None:
            caption += f': mIoU {score:.2f}'
        picture = draw_rows(
            rows, TITLES, runner.visualizer.dataset_meta, caption=caption)
        path = osp.join(runner.work_dir, f'{mode}_prediction.png')
        save_picture(picture, path)
        runner.visualizer.add_image(f'{mode}_prediction', picture, runner.iter)
        runner.logger.info(
            ('' if score is None else f'{mode} mIoU {score:.2f}, ') +
            f'picture: {path}')


@HOOKS.register_module()
class WeightingMapsHook(PictureHook):
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

    def __init__(self, num_images: int = 1, num_channels: int = 4) -> None:
        super().__init__(num_images)
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
        if self.idle():
            return
        with self.drawing(runner):
            self._draw(runner, batch_idx, data_batch, outputs)

    def _draw(self, runner: Runner, batch_idx: int, data_batch: dict,
              outputs: Sequence[SegDataSample]) -> None:
        from ..drawing.page import page  # loads matplotlib
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        for i, output in enumerate(outputs):
            # not len(outputs): the last batch may be smaller
            index = batch_idx * runner.val_dataloader.batch_size + i
            if index >= self.num_images:
                return
            data = {key: value[i:i + 1] for key, value in data_batch.items()}
            image = read_rgb(runner.val_dataloader.dataset, output.img_path)
            picture = page(model, data, image, output,
                           runner.visualizer.dataset_meta, self.num_channels)
            runner.visualizer.add_image(f'weighting_maps_{index}', picture,
                                        runner.iter)
