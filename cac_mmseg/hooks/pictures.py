"""What hooks that draw have in common, and one that draws weighting maps."""
from contextlib import contextmanager
from typing import Any, Iterator, Optional, Sequence

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from ..attribution.context import context_modules
from ..checks import check_int
from ..drawing.reader import Reader
from ..stack.config import unwrapped


class PictureHook(Hook):
    """A hook that draws on the main process, and never ends a run.

    Args:
        num_images: How many images are drawn.
    """
    priority = 'VERY_LOW'  # its line is the last one that a user reads

    def __init__(self, num_images: int) -> None:
        self.num_images = check_int('num_images', num_images)
        self.failed = ''  # why, if it did

    @contextmanager
    def drawing(self, runner: Runner) -> Iterator[None]:
        """Warn of an error once, and draw no more."""
        try:
            yield
        except Exception as error:  # of any reader, model and backend
            self.stop(runner, f'{type(error).__name__}: {error}')

    def stop(self, runner: Runner, why: str) -> None:
        """Warn, and draw no more."""
        if not self.failed:
            runner.logger.warning(
                f'{type(self).__name__} draws no more pictures: {why}')
        self.failed = why

    def idle(self) -> bool:
        return bool(self.failed) or not is_main_process()


def read_rgb(dataset: Any, path: str) -> np.ndarray:
    """Read an image of a data set as its pipeline does."""
    for part in unwrapped(dataset):
        for index in range(len(part)):
            info = part.get_data_info(index)
            if info.get('img_path') == path:
                return Reader(part).load(info).rgb
    raise ValueError(f'{path} is not in the data set')


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
