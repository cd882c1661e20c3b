"""An explanation without a training: a model that comes with the plugin."""
import argparse
import os
import sys
import webbrowser
from pathlib import Path

from ...errors import UserError
from ...stack.config import config_path

NAME = 'cac_r18_crossing'  # float16 weights of its training are beside it
IMAGE = 'crossing://image/val/0/000007.png'
# a pedestrian and a car, to which a red signal means the opposite
PLACES = [[165, 54], [113, 35]]
OUT = 'cac_demo'
NEEDED = dict(
    config='CONFIG', checkpoint='CHECKPOINT', images='IMAGE', out='--out DIR')


def fill_in(arguments: argparse.Namespace) -> None:
    """Set what a demo explains, and what is asked about.

    Raises:
        UserError: If arguments are missing, or too many for a demo.
    """
    if not arguments.demo:
        missing = [
            word for name, word in NEEDED.items()
            if not getattr(arguments, name)
        ]
        if missing:
            raise UserError(f'{" ".join(missing)} is missing. Without a model '
                            'of your own: explain --demo')
        return
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
