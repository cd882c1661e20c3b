"""Text in UTF-8, files that are written completely or not at all, images."""
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Union

from ..errors import MissingFileError, UserError

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
UNFINISHED = '.cac_mmseg-'  # a folder that a killed process leaves


def check_writable(path: Union[str, Path]) -> Path:
    """Return the folder of a file to be written, if that is possible."""
    folder = Path(path).resolve().parent
    if Path(path).is_dir():
        raise UserError(f'{path} cannot be written: it is a folder')
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f'{path} cannot be written: {folder} is not a folder '
                        'that you may write to')
    return folder


def check_folder(path: Union[str, Path]) -> None:
    """Check that a folder is there or can be made, without making it.

    Raises:
        UserError: If it cannot.
    """
    path = Path(path).resolve()
    there = next(p for p in (path, *path.parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f'{path} cannot be made a folder: {there} is not a '
                        'folder that you may write to')


def make_folder(path: Union[str, Path]) -> Path:
    """Return a folder to write to, created if it is missing."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{path} cannot be made a folder: '
                        f'{error.strerror}') from error
    check_writable(path / 'file')
    return path


def read_text(path: Union[str, Path]) -> str:
    """Return the text of a file that a person gave, which is UTF-8.

    Raises:
        UserError: If it cannot be read, or is something else.
    """
    try:
        return Path(path).read_text(encoding='utf-8')
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is no text in UTF-8: {error}') from error


@contextmanager
def new_file(path: Union[str, Path]) -> Iterator[Path]:
    """Yield a path to write to, which takes the place of ``path`` at the end.

    After an error the new file is removed, and an earlier one stays.

    Raises:
        UserError: If ``path`` or its folder cannot be written to.
    """
    try:
        with tempfile.TemporaryDirectory(
                dir=check_writable(path), prefix=UNFINISHED) as folder:
            file = Path(folder, Path(path).name)
            yield file
            file.replace(path)
    except UserError:
        raise
    except OSError as error:  # of a full disk, or a folder that takes no file
        raise UserError(f'{path} cannot be written: '
                        f'{error.strerror or error}') from error


def find_images(paths: Sequence[str], suffix: str = '') -> List[str]:
    """Return the images that are named, or in the folders that are named.

    Args:
        paths: Of files and folders.
        suffix: Of a data set's images, beside the usual ones.

    Raises:
        UserError: If there is no such file, none in a folder, or pages would
            have the same name.
    """
    suffixes = tuple(dict.fromkeys((*SUFFIXES, suffix.lower() or SUFFIXES[0])))
    images: List[str] = []
    for path in paths:
        if os.path.isdir(path):
            found = sorted(
                os.path.join(path, name) for name in os.listdir(path)
                if name.lower().endswith(suffixes))
            if not found:
                raise MissingFileError(
                    f'{path} holds no image ({", ".join(suffixes)})')
            images += found
        elif is_there(path):
            images.append(path)
        else:
            raise MissingFileError(f'{path} is not a file or a folder: give '
                                   'images, or folders of images')
    seen: Dict[str, str] = {}
    for image in images:
        other = seen.setdefault(Path(image).stem, image)
        if other != image:
            raise UserError(f'{other} and {image} would both be written to '
                            f'{Path(image).stem}.png: give them in two calls')
    return [*seen.values()]


def is_there(path: str) -> bool:
    # others are served by a backend of mmengine's
    return '://' in path or os.path.isfile(path)
