"""The results as a table and as a plot."""
from typing import Any, Dict, List

import torch

from cac_mmseg.stack.env import conditions, device_name
from cac_mmseg.stack.tables import figures_table
from .setting import Setting

# heading, format and factor of each column that a row may have
COLUMNS = {
    'name': ('measured', '{}', 1),
    'train_ms': ('step, ms', '{:.1f}', 1),
    'train_ratio': ('step over bare', '{:.2f}', 1),
    'predict_ms': ('forward, ms', '{:.1f}', 1),
    'predict_ratio': ('forward over bare', '{:.2f}', 1),
    'peak_mib': ('peak, MiB', '{:,.0f}', 1),
    'saved_mib': ('saved, MiB', '{:,.1f}', 1),
    'parameters': ('parameters', '{:,}', 1),
    'multiply_adds': ('multiply-adds, G', '{:.1f}', 1e-9),
    'microseconds': ('ms', '{:.3f}', 1e-3),
    'gigabytes_per_second': ('GB/s', '{:.1f}', 1),
    'over_copy': ('over a copy', '{:.1f}', 1),
}
# title of each plot
TITLES = dict(
    train_ratio='training step, over bare',
    predict_ratio='forward, over bare',
    peak_mib='peak memory, MiB',
    saved_mib='saved for backward, MiB',
    over_copy='time over that of a copy of as many bytes')


class Report:
    """Rows of figures, and the conditions they were measured under.

    Args:
        setting: The conditions.

    Attributes:
        rows: Figures by keys of :data:`COLUMNS`.
        skipped: Why something was not measured, by name.
    """

    def __init__(self, setting: Setting) -> None:
        self.rows: List[Dict[str, Any]] = []
        self.skipped: Dict[str, str] = {}
        self.setting = setting
        height, width = setting.size
        self.map = (f'batch {setting.batch}, {height} x {width}, '
                    f'{str(setting.dtype)[6:]}, {setting.layout}')

    def print(self) -> None:
        """Print the table, what is missing in it, and the conditions."""
        print(figures_table(COLUMNS, self.rows))
        for name, why in self.skipped.items():
            print(f'not measured: {name}: {why}')
        print(f'\n{conditions("tools", self.setting.device)}\n'
              f'feature map: {self.map}\n'
              f'rounds: {self.setting.rounds}, median')

    def plot(self, path: str) -> None:
        """Draw a bar per row: time, and memory where it was measured."""
        from matplotlib.figure import Figure

        panels = [key for key in TITLES if any(key in r for r in self.rows)]
        rows = [row for row in self.rows if any(key in row for key in panels)]
        names = [row['name'] for row in rows]
        colours = [
            'tab:orange' if name.startswith('CaC') else 'tab:gray'
            for name in names
        ]
        figure = Figure((1.5 + 3 * len(panels), 1.2 + 0.28 * len(names)),
                        layout='constrained')
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, key in zip(axes, panels):
            values = [row.get(key, 0) for row in rows]
            bars = axis.barh(names, values, color=colours)
            axis.bar_label(
                bars, [COLUMNS[key][1].format(value) for value in values],
                padding=2,
                fontsize=8)
            axis.set_title(TITLES[key], fontsize=9)
            axis.margins(x=0.18)
            axis.spines[['top', 'right']].set_visible(False)
        axes[0].invert_yaxis()
        figure.supxlabel(
            f'{device_name(self.setting.device)}; {self.map}; '
            f'torch {torch.__version__}',
            fontsize=7)
        figure.savefig(path, dpi=150)
