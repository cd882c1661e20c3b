"""The results as a table, as JSON and as a plot."""
import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch

from cac_mmseg.stack.env import command, device_name, versions
from cac_mmseg.stack.tables import markdown_table
from .timing import Setting

# heading and format of each column that a row may have
COLUMNS = {
    'name': ('measured', '{}'),
    'train_ms': ('step, ms', '{:.1f}'),
    'train_ratio': ('step over {reference}', '{:.2f}'),
    'predict_ms': ('forward, ms', '{:.1f}'),
    'predict_ratio': ('forward over {reference}', '{:.2f}'),
    'peak_mib': ('peak, MiB', '{:,.0f}'),
    'saved_mib': ('saved, MiB', '{:,.1f}'),
    'parameters': ('parameters', '{:,}'),
    'multiply_adds': ('multiply-adds, G', '{:.1f}'),
    'ms': ('ms', '{:.3f}'),
    'gigabytes_per_second': ('GB/s', '{:.1f}'),
    'floor_ms': ('floor, ms', '{:.3f}'),
    'over_floor': ('over floor', '{:.1f}'),
}
SCALE = {'multiply_adds': 1e-9}


class Report:
    """Rows of figures, and the conditions they were measured under.

    Args:
        setting: The conditions.
        reference: What ratios are over, in a word.
    """

    def __init__(self, setting: Setting, reference: str = 'bare') -> None:
        self.reference = reference
        self.rows: List[Dict[str, Any]] = []
        self.skipped: Dict[str, str] = {}
        height, width = setting.size
        self.facts = {
            'command':
            command('tools'),
            'device':
            device_name(setting.device),
            'feature map':
            f'batch {setting.batch}, {height} x {width}, '
            f'{str(setting.dtype)[6:]}'
            f'{", channels_last" if setting.channels_last else ""}',
            'rounds':
            f'{setting.rounds}, median',
            'versions':
            versions(),
        }

    def add(self, row: Dict[str, Any]) -> None:
        """Add a row; its keys are of :data:`COLUMNS`."""
        self.rows.append(row)

    def skip(self, name: str, error: Exception) -> None:
        """Record why something was not measured."""
        first = (str(error).strip().splitlines() or [''])[0]
        self.skipped[name] = f'{type(error).__name__}: {first}'

    def publish(self, json_file: Optional[str],
                plot_file: Optional[str]) -> None:
        """Print the table; write the files that are asked for."""
        print(self.table())
        for name, reason in self.skipped.items():
            print(f'not measured: {name}: {reason}')
        print()
        for name, value in self.facts.items():
            print(f'{name}: {value}')
        if json_file:
            Path(json_file).write_text(
                json.dumps(
                    dict(
                        facts=self.facts, rows=self.rows,
                        skipped=self.skipped),
                    indent=1) + '\n',
                encoding='utf-8')
        if plot_file:
            self.plot(plot_file)

    def table(self) -> str:
        """Return the rows in Markdown."""
        keys = [key for key in COLUMNS if any(key in row for row in self.rows)]
        return markdown_table(
            [COLUMNS[key][0].format(reference=self.reference) for key in keys],
            [[
                COLUMNS[key][1].format(row[key] *
                                       SCALE.get(key, 1)) if key in row else ''
                for key in keys
            ] for row in self.rows])

    def plot(self, path: str) -> None:
        """Draw a bar per row: time, and memory where it was measured."""
        import matplotlib
        matplotlib.use('Agg')
        import matplotlib.pyplot as plt

        titles = dict(
            train_ratio=f'training step, over {self.reference}',
            predict_ratio=f'forward, over {self.reference}',
            peak_mib='peak memory, MiB',
            saved_mib='saved for backward, MiB',
            over_floor='time over the floor of memory traffic')
        panels = [key for key in titles if any(key in r for r in self.rows)]
        rows = [row for row in self.rows if any(key in row for key in panels)]
        names = [row['name'] for row in rows]
        figure, axes = plt.subplots(
            1,
            len(panels),
            sharey=True,
            squeeze=False,
            layout='constrained',
            figsize=(1.5 + 3 * len(panels), 1.2 + 0.28 * len(names)))
        for axis, key in zip(axes[0], panels):
            values = [row.get(key, 0) for row in rows]
            colours = [
                'tab:orange' if name.startswith('CaC') else 'tab:gray'
                for name in names
            ]
            bars = axis.barh(names, values, color=colours)
            axis.bar_label(
                bars, [COLUMNS[key][1].format(value) for value in values],
                padding=2,
                fontsize=8)
            axis.set_title(titles[key], fontsize=9)
            axis.margins(x=0.18)
            axis.spines[['top', 'right']].set_visible(False)
        axes[0][0].invert_yaxis()
        facts = self.facts
        figure.supxlabel(
            f'{facts["device"]}; {facts["feature map"]}; '
            f'torch {torch.__version__}',
            fontsize=7)
        figure.savefig(path, dpi=150)
        plt.close(figure)
