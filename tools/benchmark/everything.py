"""All that a GPU has to tell, part by part, in one run.

Each part is a table, written row by row. A part that fails is named, and the
next one starts. On a CPU the sizes are tiny: it shows that everything runs,
not how fast.
"""
import csv
import os
import time
import traceback
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import torch
from torch.autograd import DeviceType
from torch.profiler import profile

from cac_mmseg.ops import choice
from cac_mmseg.ops.choice import VARIABLE
from cac_mmseg.stack.env import conditions
from cac_mmseg.stack.files import make_folder, new_file
from cac_mmseg.stack.tables import markdown_table
from cac_mmseg.stack.timing import predict, train
from cac_mmseg.stack.words import counted
from . import heads
from .operators import TRITON, Operators, Row
from .plan import FULL, TINY
from .report import Report
from .setting import Setting, changed


class Everything:
    """The parts of the benchmark, and what they have found.

    Args:
        device: Where it runs.
        out: Folder of the tables.
    """

    def __init__(self, device: torch.device, out: Path) -> None:
        self.out = make_folder(out)
        self.plan = plan = FULL if device.type == 'cuda' else TINY
        self.setting = Setting(device, plan.dtype, plan.batch, plan.size,
                               plan.rounds)
        self.start = time.perf_counter()
        self.tables: Dict[str, List[Row]] = {}
        self.failures: Dict[str, str] = {}
        self.operators = Operators(device, plan, self.failures)

    def run(self) -> None:
        """Run every part; write as it goes."""
        # of what a run that is cut off should have told, the most first
        parts: Dict[str, Callable[[], Iterator[Row]]] = {
            'idle': self.idle,
            'correctness': self.operators.correctness,
            'operators': self.operators.times,
            'host': self.host,
            'cuda-graph': self.cuda_graph,
            'heads': self.heads,
            **{
                f'models-r{depth}': partial(self.heads, depth)
                for depth in self.plan.depths
            },
            # these compile for minutes
            'settings': self.operators.settings,
            'compiled': self.operators.compiled
        }
        for name, part in parts.items():
            rows = self.tables[name] = []
            try:
                for row in part():
                    rows.append(row)
                    self.write(name)
            except Exception:  # the others may run
                self.failures[name] = traceback.format_exc(limit=-3)
            elapsed = time.perf_counter() - self.start
            print(
                f'{name}: {counted(len(rows), "row")}, {elapsed:.0f} s since '
                'the start',
                flush=True)
        self.write_page()

    def write(self, name: str) -> None:
        """Write the table of a part as far as it is, and the page."""
        rows = self.tables[name]
        with new_file(self.out / f'{name}.csv') as file, file.open(
                'w', newline='', encoding='utf-8') as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        self.write_page()

    def write_page(self) -> None:
        """Write all tables in Markdown."""
        facts = conditions('tools', self.setting.device)
        parts = ['# Benchmark', facts.replace('\n', '  \n')]
        for name, rows in self.tables.items():
            parts.append(f'## {name}')
            cells = [[_cell(value) for value in row.values()] for row in rows]
            if rows:
                parts.append(markdown_table([*rows[0]], cells))
        for name, failure in self.failures.items():
            parts += [f'## {name} failed', f'```\n{failure}\n```']
        with new_file(self.out / 'benchmark.md') as file:
            file.write_text('\n\n'.join(parts) + '\n', encoding='utf-8')

    def heads(self, depth: Optional[int] = None) -> Iterator[Row]:
        """Decode heads, with each implementation; behind a ResNet of a depth.
        """
        names = self.plan.in_models if depth else self.plan.names
        for i, implementation in enumerate(self.operators.implementations):
            # only CaC has several
            chosen = [
                name for name in names if i == 0 or name.startswith('CaC')
            ]
            report = Report(self.setting)
            with _use(implementation):
                heads.measure(chosen, depth, self.setting, report)
            self.failures.update(report.skipped)
            picture = f'r{depth}' if depth else 'heads'
            report.plot(str(self.out / f'{picture}-{implementation}.png'))
            for row in report.rows:
                yield dict(row, implementation=implementation)

    def idle(self) -> Iterator[Row]:
        """A training step behind a ResNet: how long the GPU works of it."""
        for name in (heads.BARE, 'CaCHead'):
            case = heads.head_case(name, self.setting, self.plan.depths[0])
            step = partial(train, case)
            elapsed = self.operators.seconds({name: step})[name]
            with profile() as found:
                step()
                if self.setting.device.type == 'cuda':
                    torch.cuda.synchronize()
            kernels = [
                event for event in found.events()
                if event.device_type == DeviceType.CUDA
            ]
            yield dict(
                name=name,
                step_ms=elapsed * 1e3,
                busy_ms=sum(event.device_time for event in kernels) / 1e3,
                launches=len(kernels))

    def host(self) -> Iterator[Row]:
        """Heads on next to nothing: what the host needs for their calls."""
        for dtype in (torch.float32, torch.bfloat16):
            report = Report(
                replace(
                    self.setting,
                    dtype=dtype,
                    size=(4, 4),
                    channels=16,
                    rounds=20 * self.plan.rounds))
            heads.measure(['CaCHead', 'CaCHead-4'], None, report.setting,
                          report)
            self.failures.update(report.skipped)
            for row in report.rows:
                yield dict(row, dtype=str(dtype)[6:])

    def cuda_graph(self) -> Iterator[Row]:
        """A forward of the head, launched call by call and as a CUDA graph."""
        if self.setting.device.type != 'cuda':
            return
        for name in self.operators.implementations:
            with _use(name), torch.no_grad():
                case = heads.head_case('CaCHead', self.setting, None)
                forward = partial(predict, case)
                times = self.operators.seconds(dict(launched=forward))
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    forward()
                times.update(self.operators.seconds(dict(graph=graph.replay)))
            yield dict(
                implementation=name,
                **{
                    f'{what}_us': elapsed * 1e6
                    for what, elapsed in times.items()
                })


@contextmanager
def _use(implementation: str) -> Iterator[None]:
    """Choose what runs on a GPU."""
    kernels = TRITON.get(implementation)
    with changed(os.environ, VARIABLE, '1' if kernels else '0'), \
            changed(vars(choice), 'KERNELS', kernels or choice.KERNELS):
        yield


def _cell(value: Any) -> str:
    return f'{value:.3g}' if isinstance(value, float) else str(value)
