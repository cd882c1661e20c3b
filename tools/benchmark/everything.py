"""All that a GPU has to tell, part by part, in one run.

Each part is a table, written row by row. A part that fails is named, and the
next one starts. On a CPU the sizes are tiny: it shows that everything runs,
not how fast.
"""
import csv
import time
import traceback
from functools import partial
from pathlib import Path
from typing import (Any, Callable, ContextManager, Dict, Iterator, List,
                    Optional, Sequence, Tuple)
from unittest.mock import patch

import torch

from cac_mmseg.stack.env import command, device_name, versions
from cac_mmseg.stack.files import make_folder, new_file
from cac_mmseg.stack.tables import markdown_table
from cac_mmseg.stack.words import counted
from . import heads
from .operators import Operators
from .plan import FULL, TINY
from .report import Report
from .timing import Setting, seconds_of

Row = Dict[str, Any]


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
        self.operators = Operators(device, self.plan, self.failures)

    def run(self) -> None:
        """Run every part; write as it goes."""
        parts: Dict[str, Callable[[], Iterator[Row]]] = dict(
            correctness=self.operators.correctness,
            operators=self.operators.times,
            heads=self.heads)
        for depth in self.plan.depths:
            parts[f'models-r{depth}'] = partial(self.models, depth)
        parts['cuda-graph'] = self.cuda_graph
        # these compile for minutes
        parts['settings'] = self.operators.settings
        parts['compiled'] = self.operators.compiled
        for name, part in parts.items():
            rows = self.tables[name] = []
            try:
                for row in part():
                    rows.append(row)
                    self.write(name)
            except Exception:  # the others may run
                self.failures[name] = traceback.format_exc(limit=-3)
                self.write_page()
            elapsed = time.perf_counter() - self.start
            print(
                f'{name}: {counted(len(rows), "row")}, {elapsed:.0f} s since '
                'the start',
                flush=True)

    def write(self, name: str) -> None:
        """Write the table of a part as far as it is, and the page."""
        rows = self.tables[name]
        with new_file(self.out / f'{name}.csv') as file:
            with file.open('w', newline='', encoding='utf-8') as stream:
                writer = csv.DictWriter(stream, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        self.write_page()

    def write_page(self) -> None:
        """Write all tables in Markdown."""
        with new_file(self.out / 'benchmark.md') as file:
            file.write_text(self.page(), encoding='utf-8')

    def page(self) -> str:
        """Return all tables in Markdown."""
        lines = [
            '# Benchmark', '', f'`{command("tools")}`', '',
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
        for i, implementation in enumerate(self.operators.implementations):
            # only CaC has several
            chosen = [
                name for name in names if i == 0 or name.startswith('CaC')
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
        for name in self.operators.implementations:
            setting = Setting(self.device, torch.bfloat16, batch, size, 1,
                              False, False)
            with _use(name), torch.no_grad():
                case = heads.Case.of_name('CaCHead', setting, None).eval()
                forward = partial(heads.predict, case, setting)
                eager_seconds = seconds_of(forward, self.plan.seconds)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    forward()
                yield dict(
                    implementation=name,
                    launched_us=eager_seconds * 1e6,
                    graph_us=seconds_of(graph.replay, self.plan.seconds) * 1e6)


def _use(implementation: str) -> ContextManager:
    """Choose what runs on a GPU."""
    wanted = '1' if implementation == 'triton' else '0'
    return patch.dict('os.environ', CAC_MMSEG_TRITON=wanted)


def _cell(value: Any) -> str:
    return f'{value:.3g}' if isinstance(value, float) else str(value)
