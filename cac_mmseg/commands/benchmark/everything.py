"""All that a GPU has to tell, part by part, in one run.

Each part is a table, written as soon as it is there. A part that fails is
named, and the next one starts. On a CPU the sizes are tiny: it shows that
everything runs, not how fast.
"""
import csv
import time
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import (Any, Callable, ContextManager, Dict, Iterator, List,
                    Optional, Sequence, Tuple)
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from ...ops import decomposed, eager
from ...utils.env import command, device_name, versions
from ...utils.files import make_folder, new_file
from ...utils.tables import markdown_table
from . import heads
from .report import Report
from .timing import Setting

DILATIONS = (1, 3, 5)
LAYOUTS = {
    'NCHW': torch.contiguous_format,
    'channels_last': torch.channels_last
}
# of the largest value, what is summed in float32 and stored in the dtype
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-9}
# settings of the Triton kernels, changed one by one
SETTINGS = dict(
    FORWARD_ROWS=(4, 8, 16),
    BACKWARD_ROWS=(2, 4, 8),
    LANES=(64, 128, 256),
    BOX=((16, None), (32, None), (64, None)),
    BOX_CHANNELS_LAST=((8, 4), (8, 8), (8, 16)),
    PROGRAMS_PER_PROCESSOR=(2, 4, 6, 8))

Row = Dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Sizes of everything that is measured.

    Args:
        channels: C of the re-weighting.
        maps: Batch, height and width.
        seconds: That a function is repeated for.
        heads: Batch, and size of the feature map.
        models: The same, for backbones with heads.
        depths: Of the backbones.
        rounds: Of heads and models.
        names: Heads to compare alone.
        in_models: Heads to compare behind a backbone.
    """
    channels: int
    maps: Sequence[Tuple[int, int, int]]
    seconds: float
    heads: Tuple[int, Tuple[int, int]]
    models: Tuple[int, Tuple[int, int]]
    depths: Sequence[int]
    rounds: int
    names: Sequence[str]
    in_models: Sequence[str]


FULL = Plan(
    channels=512,
    maps=[(b, h, w) for h, w in ((64, 128), (128, 256), (60, 60))
          for b in (2, 8)],
    seconds=0.05,
    heads=(2, (64, 128)),
    models=(2, (64, 128)),
    depths=(50, 101),
    rounds=10,
    names=tuple(heads.HEADS),
    in_models=('FCNHead', 'PSPHead', 'DMHead', 'ASPPHead', 'OCRHead',
               'CaCHead'))
TINY = Plan(
    channels=16,
    maps=[(2, 8, 12), (1, 7, 5)],
    seconds=0.001,
    heads=(2, (4, 4)),
    models=(2, (4, 4)),
    depths=(50, ),
    rounds=1,
    names=('CaCHead', 'OCRHead'),
    in_models=('CaCHead', ))


class Everything:
    """The parts of the benchmark, and what they have found.

    Args:
        device: Where it runs.
        out: Folder of the tables.
    """

    def __init__(self, device: torch.device, out: Path) -> None:
        self.device, self.out = device, make_folder(out)
        self.plan = FULL if device.type == 'cuda' else TINY
        self.start = time.perf_counter()
        self.tables: Dict[str, List[Row]] = {}
        self.failures: Dict[str, str] = {}
        self.implementations: Dict[str, Any] = {'eager': eager}
        if device.type == 'cuda':
            try:
                from ...ops import triton_pooling as pooling
                from ...ops import triton_reweighting as reweighting
            except ImportError as error:
                self.failures['triton'] = str(error)
            else:
                self.implementations['triton'] = SimpleNamespace(
                    pool_queries=pooling.pool_queries,
                    pool_queries_backward=pooling.pool_queries_backward,
                    reweight=reweighting.reweight,
                    reweight_backward=reweighting.reweight_backward,
                    modules=(reweighting, pooling))

    def run(self) -> None:
        """Run every part; write after each."""
        parts: Dict[str, Callable[[], Iterator[Row]]] = dict(
            correctness=self.correctness,
            operators=self.operators,
            settings=self.settings,
            heads=self.heads)
        for depth in self.plan.depths:
            parts[f'models-r{depth}'] = partial(self.models, depth)
        parts['cuda-graph'] = self.cuda_graph
        for name, part in parts.items():
            rows = self.tables[name] = []
            try:
                for row in part():
                    rows.append(row)
            except Exception:  # the others may run
                self.failures[name] = traceback.format_exc(limit=-3)
            self.write(name)

    def write(self, name: str) -> None:
        """Write the table of a part, and the page of all so far."""
        rows = self.tables[name]
        if rows:
            with new_file(self.out / f'{name}.csv') as file:
                with file.open('w', newline='') as stream:
                    writer = csv.DictWriter(stream, list(rows[0]))
                    writer.writeheader()
                    writer.writerows(rows)
        elapsed = time.perf_counter() - self.start
        print(
            f'{name}: {len(rows)} rows, {elapsed:.0f} s since the start',
            flush=True)
        with new_file(self.out / 'benchmark.md') as file:
            file.write_text(self.page())

    def page(self) -> str:
        """Return all tables in Markdown."""
        lines = [
            '# Benchmark', '', f'`{command()}`', '',
            f'{device_name(self.device)}; {versions()}; '
            f'{time.perf_counter() - self.start:.0f} s'
        ]
        for name, rows in self.tables.items():
            lines += ['', f'## {name}', '']
            if rows:
                lines.append(
                    markdown_table(
                        list(rows[0]),
                        [[_cell(value) for value in row.values()]
                         for row in rows]))
        for name, failure in self.failures.items():
            lines += ['', f'## {name} failed', '', f'```\n{failure}\n```']
        return '\n'.join(lines) + '\n'

    # ---- parts

    def correctness(self) -> Iterator[Row]:
        """Each implementation against float64; what is wrong is not timed."""
        for name, module in list(self.implementations.items()):
            for dtype in TOLERANCE:
                for layout in LAYOUTS:
                    errors = _errors(
                        module,
                        self._inputs((2, 37, 61), dtype, layout, channels=24))
                    right = max(errors.values()) <= TOLERANCE[dtype]
                    if not right:
                        self.implementations.pop(name, None)
                    yield dict(
                        implementation=name,
                        dtype=str(dtype)[6:],
                        layout=layout,
                        **errors,
                        right=right)

    def operators(self) -> Iterator[Row]:
        """Time and bandwidth of both operations, beside a copy."""
        for size in self.plan.maps:
            for dtype in TOLERANCE:
                for layout in LAYOUTS:
                    inputs = self._inputs(size, dtype, layout)
                    yield from self._of_map(size, inputs, layout)

    def _of_map(self, size: Tuple[int, int, int], inputs: Tuple[Tensor, ...],
                layout: str) -> Iterator[Row]:
        grad, x, kernels = inputs
        weight, bias, *grads = _pooling_inputs(x)
        functions: Dict[str, Callable[[], Any]] = {}
        for name, module in self.implementations.items():
            functions[f'{name} forward'] = partial(module.reweight, x, kernels,
                                                   DILATIONS)
            functions[f'{name} backward'] = partial(module.reweight_backward,
                                                    grad, x, kernels,
                                                    DILATIONS)
            functions[f'{name} pooling forward'] = partial(
                module.pool_queries, x, weight, bias)
            functions[f'{name} pooling backward'] = partial(
                module.pool_queries_backward, *grads, x, weight, bias)
        # each recompiles: the one that is compared with most
        if self.device.type == 'cuda' and x.dtype == torch.bfloat16 and (
                layout == 'NCHW' and size == self.plan.maps[0]):
            functions['compiled forward'] = partial(
                torch.compile(decomposed.reweight), x, kernels, DILATIONS)
        copy = self._seconds(partial(torch.empty_like(x).copy_, x))
        for name, function in functions.items():
            elapsed = self._seconds(function)
            # in S: what has to move, where a copy of X moves 2
            passes = (1 if 'pooling' in name else
                      2) + (not name.endswith('forward'))
            floor = copy * passes / 2
            moved = x.numel() * x.element_size() * passes
            yield dict(
                map=' x '.join(map(str, size)),
                dtype=str(x.dtype)[6:],
                layout=layout,
                what=name,
                microseconds=elapsed * 1e6,
                gigabytes_per_second=moved / elapsed / 1e9,
                over_copy=elapsed / floor)

    def settings(self) -> Iterator[Row]:
        """Each setting of the Triton kernels on its own."""
        triton = self.implementations.get('triton')
        if triton is None:
            return
        module = triton.modules[0]
        for name, values in SETTINGS.items():
            layout = ('channels_last' if 'CHANNELS_LAST' in name else 'NCHW')
            inputs = self._inputs(self.plan.maps[0], torch.bfloat16, layout)
            grad, x, kernels = inputs
            default = getattr(module, name)
            for value in values:
                with patch.object(module, name, value):
                    yield dict(
                        setting=name,
                        value=str(value),
                        default=value == default,
                        forward_us=self._seconds(
                            partial(module.reweight, x, kernels, DILATIONS)) *
                        1e6,
                        backward_us=self._seconds(
                            partial(module.reweight_backward, grad, x, kernels,
                                    DILATIONS)) * 1e6)

    def heads(self) -> Iterator[Row]:
        """Decode heads beside mmseg's, with each implementation."""
        batch, size = self.plan.heads
        yield from self._compare(batch, size, self.plan.names)

    def models(self, depth: int) -> Iterator[Row]:
        """Backbones with heads: images a second."""
        batch, size = self.plan.models
        for row in self._compare(batch, size, self.plan.in_models, depth):
            row['train_images_per_second'] = batch / row['train_ms'] * 1e3
            row['images_per_second'] = batch / row['predict_ms'] * 1e3
            yield row

    def _compare(self,
                 batch: int,
                 size: Tuple[int, int],
                 names: Sequence[str],
                 backbone: Optional[int] = None) -> Iterator[Row]:
        setting = Setting(
            device=self.device,
            dtype=torch.bfloat16,
            batch=batch,
            size=size,
            rounds=self.plan.rounds,
            channels_last=False,
            compile=False)
        for implementation in self.implementations:
            # only CaC has several
            chosen = [
                name for name in names
                if implementation == 'eager' or name.startswith('CaC')
            ]
            report = Report(setting)
            with _use(implementation):
                heads.measure(
                    heads.of_names(chosen, backbone, setting), setting, report)
            self.failures.update(report.skipped)
            picture = f'r{backbone}' if backbone else 'heads'
            report.plot(str(self.out / f'{picture}-{implementation}.png'))
            for row in report.rows:
                yield dict(row, implementation=implementation)

    def cuda_graph(self) -> Iterator[Row]:
        """A forward of the head, launched call by call and as a CUDA graph."""
        if self.device.type != 'cuda':
            return
        batch, size = self.plan.heads
        for name in self.implementations:
            setting = Setting(self.device, torch.bfloat16, batch, size, 1,
                              False, False)
            with _use(name), torch.no_grad():
                case = heads.Case('CaCHead', setting, None).eval()
                forward = partial(heads.predict, case, setting)
                eager_seconds = self._seconds(forward)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    forward()
                yield dict(
                    implementation=name,
                    launched_us=eager_seconds * 1e6,
                    graph_us=self._seconds(graph.replay) * 1e6)

    # ---- tools

    def _inputs(self,
                size: Tuple[int, int, int],
                dtype: torch.dtype,
                layout: str,
                channels: int = 0) -> Tuple[Tensor, Tensor, Tensor]:
        """Return dY, X and kernels."""
        b, h, w = size
        c = channels or self.plan.channels
        grad, x = (
            torch.randn(b, c, h, w, device=self.device).to(
                dtype, memory_format=LAYOUTS[layout]) for _ in range(2))
        kernels = torch.randn(b, len(DILATIONS), c, 3, 3, device=self.device)
        return grad, x, kernels

    def _seconds(self, function: Callable[[], Any]) -> float:
        """Return the median time of a call."""
        function()  # compiles
        timer = Timer('function()', globals=dict(function=function))
        return timer.blocked_autorange(min_run_time=self.plan.seconds).median


def _use(implementation: str) -> ContextManager:
    """Choose what runs on a GPU."""
    wanted = '1' if implementation == 'triton' else '0'
    return patch.dict('os.environ', CAC_MMSEG_TRITON=wanted)


def _errors(module: Any, inputs: Tuple[Tensor, ...]) -> Dict[str, float]:
    """Return the errors of all results, relative to their largest value."""
    grad, x, kernels = inputs
    weight, bias, *grads = _pooling_inputs(x)
    actual = (module.reweight(x, kernels, DILATIONS),
              *module.reweight_backward(grad, x, kernels, DILATIONS),
              *module.pool_queries(x, weight, bias),
              *module.pool_queries_backward(*grads, x, weight, bias))
    x, kernels, weight, bias = (
        t.detach().double().requires_grad_()
        for t in (x, kernels, weight, bias))
    y = decomposed.reweight(x, kernels, DILATIONS)
    pooled = decomposed.pool_queries(x, weight, bias)
    expected = (y, *torch.autograd.grad(y, (x, kernels), grad.double()),
                *pooled, *torch.autograd.grad(pooled, (x, weight, bias),
                                              [g.double() for g in grads]))
    names = ('Y', 'dX', 'dD', 'pooled', 'mean', 'pooling dX', 'dW', 'db')
    return {
        name:
        ((ours.double() - theirs).abs().max() / theirs.abs().max()).item()
        for name, ours, theirs in zip(names, actual, expected)
    }


def _pooling_inputs(x: Tensor) -> List[Tensor]:
    """Return weight, bias, and the gradients of both results."""
    b, c = x.shape[:2]
    r = len(DILATIONS) * 9
    shapes = ((r, c), (r, ), (b, r, c), (b, r))
    return [torch.randn(shape, device=x.device) for shape in shapes]


def _cell(value: Any) -> str:
    return f'{value:.3g}' if isinstance(value, float) else str(value)
