"""An explanation without a training: a model that comes with the plugin."""
import argparse
import os
import sys
import webbrowser
from pathlib import Path
from typing import Any, List

from ...errors import UserError
from ...stack.config import config_path

NAME = 'cac_r18_crossing'  # float16 weights of its training are beside it
IMAGE = 'crossing://image/val/0/000007.png'
# a pedestrian and a car, to which a red signal means the opposite
PLACES = [[165, 54], [113, 35]]
OUT = 'cac_demo'


class Demo(argparse.Action):
    """An option without which the arguments ``needed`` are required."""

    def __init__(self, needed: List[argparse.Action], **options: Any) -> None:
        super().__init__(nargs=0, default=False, **options)
        self.needed = needed

    def __call__(self, parser: argparse.ArgumentParser,
                 namespace: argparse.Namespace, *_: Any) -> None:
        namespace.demo = True
        for action in self.needed:
            action.required = False


def fill_in(arguments: argparse.Namespace) -> None:
    """Set what a demo explains, and what is asked about.

    Raises:
        UserError: If a model is given, too.
    """
    if arguments.config:
        raise UserError(f'--demo brings its own model: leave '
                        f'{arguments.config} out')
    config = config_path(NAME)
    arguments.config = config
    arguments.checkpoint = str(Path(config).with_suffix('.pth'))
    arguments.images = [IMAGE]
    arguments.out = arguments.out or OUT
    arguments.html = True
    if not (arguments.at or arguments.mask or arguments.class_name):
        arguments.at = PLACES


def show(page: Path) -> None:
    """Open a page where there is a desktop, and say where it is."""
    desktop = sys.platform in ('darwin', 'win32') or any(
        os.environ.get(name) for name in ('DISPLAY', 'WAYLAND_DISPLAY'))
    # elsewhere a browser of text would take over the terminal
    if desktop:
        webbrowser.open(page.resolve().as_uri())
    print(f'point at any place of {page}')
