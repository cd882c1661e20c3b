"""Find the checkpoint to resume from after a run was interrupted."""
import logging
import os
from pathlib import Path
from typing import List, Optional, Union

from mmengine.logging import print_log

from ..utils.checkpoint import load_weights
from ..utils.files import new_file

LAST = 'last_checkpoint'  # mmengine's: holds the path of the newest


def settle_last_checkpoint(work_dir: Union[str, Path]) -> Optional[Path]:
    """Make ``last_checkpoint`` of a work folder name an intact checkpoint.

    A run that is killed while it saves leaves a truncated checkpoint, or a
    truncated ``last_checkpoint``, on which mmengine fails deep inside. The
    named checkpoint is kept if it is intact; otherwise the newest intact one
    replaces it, and a warning names those that are damaged. A run killed while
    it saved its first checkpoint starts again: nothing was saved yet.

    Args:
        work_dir: Of the run to resume.

    Returns:
        The checkpoint, or None where none was ever saved.

    Raises:
        ValueError: If there are checkpoints, but none is intact.
    """
    work_dir = Path(work_dir)
    broken: List[str] = []
    for path in _candidates(work_dir):
        try:
            load_weights(path)
        except (FileNotFoundError, ValueError) as error:
            broken.append(str(error))
            continue
        if path != _named(work_dir):
            with new_file(work_dir / LAST) as file:
                file.write_text(str(path))
            print_log(
                f'{work_dir / LAST} named no intact checkpoint'
                f'{"".join(f"; {reason}" for reason in broken)}: resuming '
                f'from {path}',
                logger='current',
                level=logging.WARNING)
        return path
    if len(broken) == 1 and not (work_dir / LAST).exists():
        print_log(
            f'{broken[0]}. It was the first of the run: training from the '
            'start',
            logger='current',
            level=logging.WARNING)
        return None
    if broken:
        raise ValueError(
            f'none of the checkpoints in {work_dir} can be resumed: '
            f'{"; ".join(broken)}. Remove them to train from the start')
    return None


def _candidates(work_dir: Path) -> List[Path]:
    """Return the named checkpoint, then the others, the newest first."""
    named = _named(work_dir)
    others = [
        path for pattern in ('iter_*.pth', 'epoch_*.pth')
        for path in work_dir.glob(pattern) if path != named
    ]
    others.sort(key=os.path.getmtime, reverse=True)
    return ([named] if named else []) + others


def _named(work_dir: Path) -> Optional[Path]:
    try:
        name = (work_dir / LAST).read_text().strip()
    except FileNotFoundError:
        return None
    return Path(name) if name else None
