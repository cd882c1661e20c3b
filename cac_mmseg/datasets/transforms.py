"""Transforms that load once, and check labels before the loss sees them."""
import copy
from typing import Dict, List

from mmcv.transforms import BaseTransform, Compose
from mmseg.registry import TRANSFORMS

from ..checks import check_int
from ..stack.labels import check_labels
from ..stack.targets import Target


@TRANSFORMS.register_module()
class CheckLabels(BaseTransform):
    """Refuse a label map with values that are no class, naming its file.

    Goes after ``LoadAnnotations``, where labels are 0 .. num_classes - 1 or
    255 (ignored). PreflightHook checks each batch; this checks once what
    ``LoadOnce`` keeps.

    Args:
        num_classes: Number of classes.

    Raises:
        ValueError: With the file and the values.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = check_int('num_classes', num_classes)

    def transform(self, results: dict) -> dict:
        """Return ``results`` unchanged."""
        check_labels(
            results['gt_seg_map'],
            [Target(type(self).__name__, self.num_classes, 255)],
            results.get('seg_map_path'),
            reduced=bool(results.get('reduce_zero_label')))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_classes={self.num_classes})'


@TRANSFORMS.register_module()
class LoadOnce(BaseTransform):
    """Run loading transforms once per image, and keep their result in memory.

    For data sets that fit: height * width * 4 bytes an image, in each worker
    process. The transforms must not be random.

    Args:
        transforms: Configs, such as of ``LoadImageFromFile`` and
            ``LoadAnnotations``.
    """

    def __init__(self, transforms: List[dict]) -> None:
        self.transforms = Compose(transforms)
        self.loaded: Dict[str, dict] = {}

    def transform(self, results: dict) -> dict:
        """Return what the transforms make of ``results``."""
        path = results['img_path']
        if path not in self.loaded:
            self.loaded[path] = self.transforms(results)
        return copy.deepcopy(self.loaded[path])

    def __repr__(self) -> str:
        return f'{type(self).__name__}(transforms={self.transforms})'
