"""The hook that ends a validation with a page of what was learned."""
import os.path as osp
import zlib
from collections import ChainMap
from typing import Dict, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from ..drawing.reader import label_map
from ..stack.confusion import Confusion, decode, encode, worst_and_median
from ..stack.words import counted
from . import history
from .pictures import PictureHook, read_rgb

IGNORED = 255  # mmseg's default, of data sets too


class Record(NamedTuple):
    """A validated image: its maps are compressed, as those of all are kept."""
    path: str
    score: float  # mean IoU of the classes in it, NaN without ground truth
    codes: bytes  # of cac_mmseg.stack.confusion.encode
    shape: Tuple[int, int]


@HOOKS.register_module(name=['ReportHook', 'PredictionPictureHook'])
class ReportHook(PictureHook):
    """Save a page that says what was learned.

    After each validation (test), ``<work_dir>/val_report.png``
    (``test_report.png``) shows mIoU, classes that were never predicted, the
    curves of training loss and mIoU, the IoU of each class, the confusion
    matrix, and the images with the worst and the median IoU. Without ground
    truth it shows images only. It goes to the visualizer's backends too, and
    the log names the file beside the mIoU. mmseg's
    ``tools/analysis_tools/confusion_matrix.py`` needs a file of predictions.

    Args:
        num_images: Half are the worst, the others around the median.
    """

    def __init__(self, num_images: int = 4) -> None:
        super().__init__(num_images)
        self._restart()

    def _restart(self) -> None:
        self.seen = 0  # samples of this rank
        self.records: Dict[int, Record] = {}  # by place in the data set
        self.counts: Union[int, np.ndarray] = 0
        self.labelled = False

    def before_train(self, runner: Runner) -> None:
        if not self.idle():
            with self.drawing(runner):
                history.restore(runner)

    def _after_iter(self,
                    runner: Runner,
                    batch_idx: int,
                    data_batch: Optional[dict] = None,
                    outputs: Optional[Sequence[SegDataSample]] = None,
                    mode: str = 'train') -> None:
        if mode == 'train' or self.failed:
            return
        with self.drawing(runner):
            length = len(getattr(runner, f'{mode}_dataloader').dataset)
            evaluator = getattr(runner, f'{mode}_evaluator')
            ignored = _ignored(evaluator)
            # the visualizer has them on the main process only
            classes = len(evaluator.dataset_meta['classes'])
            for sample in outputs:
                place = self.seen * get_world_size() + get_rank()
                self.seen += 1
                # so that all ranks have as many, a sampler repeats the first
                # ones, which metrics leave out, too
                if place < length:
                    self._add(place, sample, classes, ignored)

    def _add(self, place: int, sample: SegDataSample, classes: int,
             ignored: int) -> None:
        prediction = label_map(sample.pred_sem_seg)
        truth = np.full_like(prediction, ignored)
        if 'gt_sem_seg' in sample:
            self.labelled, truth = True, label_map(sample.gt_sem_seg)
        codes = encode(truth, prediction, classes, ignored)
        confusion = Confusion.of(codes, classes)
        self.counts = self.counts + confusion.counts
        self.records[place] = Record(sample.img_path, confusion.mean_iou,
                                     zlib.compress(codes.tobytes(), 1),
                                     codes.shape)

    def after_val_epoch(self,
                        runner: Runner,
                        metrics: Optional[Dict[str, float]] = None) -> None:
        self._finish(runner, metrics or {}, 'val')

    def after_test_epoch(self,
                         runner: Runner,
                         metrics: Optional[Dict[str, float]] = None) -> None:
        self._finish(runner, metrics or {}, 'test')

    def _finish(self, runner: Runner, metrics: Dict[str, float],
                mode: str) -> None:
        records, counts, labelled = self.records, self.counts, self.labelled
        self._restart()
        # every rank takes part, also one that failed: others would wait for it
        parts = all_gather_object((self.failed, labelled, counts, {
            place: record.score
            for place, record in records.items()
        }))
        faults, labels, numbers, found = zip(*parts)
        for fault in filter(None, faults):
            self.stop(runner, fault)
        scores = ChainMap(*found)
        places = sorted(scores)
        if any(faults) or not places:
            return
        if any(labels):
            groups = worst_and_median([scores[i] for i in places],
                                      self.num_images)
        else:  # spread, as neighbours are often frames of one video
            step = max(1, len(places) // self.num_images)
            groups = [*range(0, len(places), step)][:self.num_images], []
        groups = [[places[i] for i in group] for group in groups]
        own = {i: records[i] for i in sum(groups, []) if i in records}
        known = ChainMap(*all_gather_object(own))
        if self.idle():
            return
        with self.drawing(runner):
            self._draw(runner,
                       Confusion(sum(numbers)) if any(labels) else None,
                       [[known[i] for i in group] for group in groups],
                       metrics, mode)

    def _draw(self, runner: Runner, confusion: Optional[Confusion],
              groups: Sequence[Sequence[Record]], metrics: Dict[str, float],
              mode: str) -> None:
        # here, so that a training that draws nothing loads no matplotlib
        from ..drawing import draw, report
        meta = getattr(runner, f'{mode}_evaluator').dataset_meta
        rows, names = [], []
        dataset = getattr(runner, f'{mode}_dataloader').dataset
        for group, records in zip(('worst', 'median'), groups):
            for record in records:
                maps = decode(
                    zlib.decompress(record.codes), record.shape,
                    len(meta['classes']))
                rows.append((read_rgb(dataset, record.path), *maps))
                names.append(f'{group}, IoU {100 * record.score:.1f}: '
                             f'{osp.basename(record.path)}')
        caption, scores = mode, ''
        if runner.iter:  # 0 where a checkpoint is tested
            caption += f' after {counted(runner.iter, "iteration")}'
        if confusion is None:
            rows = [(image, None, labels) for image, _, labels in rows]
            picture = draw.draw_rows(
                rows, report.TITLES[:3], meta, caption=caption)
        else:
            miou = _metric(metrics, 'mIoU', confusion.mean_iou)
            accuracy = _metric(metrics, 'aAcc', confusion.accuracy)
            scores = f'mIoU {miou:.2f}'
            curves = None
            if mode == 'val' and runner.iter:
                losses = runner.message_hub.log_scalars.get('train/loss')
                curves = report.Curves(
                    np.zeros(0) if losses is None else losses.data[0],
                    history.extend(runner, miou))
            picture = report.draw_report(
                f'{caption}: {scores}, aAcc {accuracy:.2f}', confusion, meta,
                rows, names, curves)
        path = osp.join(runner.work_dir, f'{mode}_report.png')
        draw.save_picture(picture, path)
        runner.visualizer.add_image(f'{mode}_report', picture, runner.iter)
        runner.logger.info(f'{mode} {scores}, report: {path}'
                           if scores else f'report: {path}')


def _ignored(evaluator: Evaluator) -> int:
    """Return the label that the metrics leave out."""
    return next(
        (metric.ignore_index
         for metric in evaluator.metrics if hasattr(metric, 'ignore_index')),
        IGNORED)


def _metric(metrics: Dict[str, float], name: str, share: float) -> float:
    """Return a metric, with a prefix or not, in percent."""
    return next(
        (float(value)
         for key, value in metrics.items() if key.rpartition('/')[2] == name),
        100 * share)


PredictionPictureHook = ReportHook  # as 0.1.0 called it
