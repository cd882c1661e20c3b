"""Find the checkpoint to resume from after a run was interrupted."""
import locale
import logging
import os
from pathlib import Path
from typing import List, Optional, Tuple, Union

from mmengine.logging import print_log

from ..errors import UnsafeError, UserError
from ..stack.checkpoint import check_resumable
from ..stack.files import new_file

LAST = 'last_checkpoint'  # mmengine's: holds the path of the newest
ENCODING = locale.getpreferredencoding(False)  # in which it is written


def settle_last_checkpoint(work_dir: Union[str, Path]) -> Optional[Path]:
    """Make ``last_checkpoint`` of a work folder name an intact checkpoint.

    A run that is killed while it saves leaves a truncated checkpoint, or a
    truncated ``last_checkpoint``, on which mmengine fails deep inside. The
    named checkpoint is kept if it is intact; otherwise the newest intact one
    replaces it, and a warning names those that are damaged, or that only their
    own code can restore. A run killed while it saved its first checkpoint
    starts again: nothing was saved yet.

    Args:
        work_dir: Of the run to resume.

    Returns:
        The checkpoint, or None where none was ever saved.

    Raises:
        ValueError: If there are checkpoints, but none can be resumed.
    """
    work_dir = Path(work_dir)
    errors: List[UserError] = []
    for path in _candidates(work_dir):
        try:
            check_resumable(path)
        except UserError as error:
            errors.append(error)
            continue
        if path != named_checkpoint(work_dir):
            with new_file(work_dir / LAST) as file:
                file.write_text(str(path), encoding=ENCODING)
            print_log(
                f'{work_dir / LAST} named no intact checkpoint'
                f'{"".join(f"; {error}" for error in errors)}: resuming '
                f'from {path}',
                logger='current',
                level=logging.WARNING)
        return path
    unsafe = [error for error in errors if isinstance(error, UnsafeError)]
    if unsafe:
        raise unsafe[0]  # of the newest, which says how to go on
    named = (work_dir / LAST).exists()
    if len(errors) == 1 and not named:
        print_log(
            f'{errors[0]}. It was the first of the run: training from the '
            'start',
            logger='current',
            level=logging.WARNING)
    elif errors or named:
        reasons = '; '.join(map(str, errors)) or f'{LAST} names none'
        raise UserError(
            f'none of the checkpoints in {work_dir} can be resumed: {reasons}.'
            ' Another work_dir starts from the beginning, and keeps these')
    return None


def _candidates(work_dir: Path) -> List[Path]:
    """Return the named checkpoint, then the others, the newest first."""
    named = named_checkpoint(work_dir)
    others = [
        path for pattern in ('iter_*.pth', 'epoch_*.pth')
        for path in work_dir.glob(pattern) if path != named
    ]
    others.sort(key=_age, reverse=True)
    return ([named] if named else []) + others


def _age(path: Path) -> Tuple[float, int, str]:
    """Return what is larger of a later checkpoint, where clocks are coarse."""
    return os.path.getmtime(path), len(path.name), path.name


def named_checkpoint(work_dir: Path) -> Optional[Path]:
    """Return what ``last_checkpoint`` names, None if it cannot be read."""
    try:
        name = (work_dir / LAST).read_text(encoding=ENCODING).strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return Path(name) if name else None
