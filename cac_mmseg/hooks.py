"""A hook that shows what a model predicts."""
import os.path as osp
from typing import Dict, List, Optional, Sequence, Tuple

import matplotlib
import mmcv
import mmengine.fileio as fileio
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from ._checks import check_int

Row = Tuple[np.ndarray, Optional[np.ndarray], np.ndarray]


@HOOKS.register_module()
class PredictionPictureHook(Hook):
    """Save image, ground truth and prediction side by side.

    After each validation (test) samples spread over it are drawn, a row each,
    to ``<work_dir>/val_prediction.png`` (``test_prediction.png``), sent to the
    visualizer's backends, and the file is named in the log with the mIoU.

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
            image = mmcv.imfrombytes(
                fileio.get(sample.img_path), channel_order='rgb')
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
        picture = draw_predictions(self.rows, runner.visualizer.dataset_meta)
        self.rows = []
        path = osp.join(runner.work_dir, f'{mode}_prediction.png')
        mmcv.imwrite(mmcv.rgb2bgr(picture), path)
        runner.visualizer.add_image(f'{mode}_prediction', picture, runner.iter)
        score = (metrics or {}).get('mIoU')
        runner.logger.info(
            ('' if score is None else f'{mode} mIoU {score:.2f}, ') +
            f'picture: {path}')


def draw_predictions(rows: Sequence[Row], dataset_meta: dict) -> np.ndarray:
    """Draw rows of image, ground truth and prediction with a legend.

    Args:
        rows: Image (H, W, 3), uint8, RGB; label maps (H, W), the ground truth
            or None; labels without a colour are left white.
        dataset_meta: ``classes`` and ``palette``, one colour per class.

    Returns:
        The picture (h, w, 3), uint8, RGB.
    """
    classes = dataset_meta['classes']
    palette = np.full((256, 3), 255, np.uint8)
    palette[:len(classes)] = dataset_meta['palette']
    height, width = rows[0][0].shape[:2]
    # inches: columns of a fixed width, rows as high as the images ask for
    side, top, bottom = 4.0, 0.3, 0.25 * (1 + len(classes) // 6) + 0.1
    tall = side * height / width * len(rows) + top + bottom
    with matplotlib.rc_context({'font.size': 11}):
        figure = Figure(figsize=(3 * side, tall), dpi=100)
        axes = figure.subplots(len(rows), 3, squeeze=False)
        for row, maps in zip(axes, rows):
            for ax, data in zip(row, maps):
                ax.set_axis_off()
                if data is not None:
                    ax.imshow(
                        data
                        if data.ndim == 3 else palette[data.astype(np.uint8)],
                        interpolation='nearest',
                        aspect='auto')
        for ax, title in zip(axes[0], ('image', 'ground truth', 'prediction')):
            ax.set_title(title, pad=4)
        figure.legend(
            handles=[
                Patch(facecolor=palette[i] / 255, label=name)
                for i, name in enumerate(classes)
            ],
            loc='lower center',
            ncols=min(6, len(classes)),
            frameon=False)
        figure.subplots_adjust(
            left=0,
            right=1,
            wspace=0.02,
            hspace=0.02,
            top=1 - top / tall,
            bottom=bottom / tall)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
