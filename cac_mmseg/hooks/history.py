"""The mIoU of each validation of a training, also of one that is resumed."""
import json
from pathlib import Path
from typing import List

from mmengine.runner import Runner

from ..stack.files import new_file

KEY = 'report/mIoU'  # in the message hub, which checkpoints hold
FILE = 'val_report.json'  # in the work folder


def restore(runner: Runner) -> None:
    """Add what a resumed checkpoint lacks: it was saved before its validation.

    The file may be that of another training, which has other values.
    """
    hub, path = runner.message_hub, Path(runner.work_dir, FILE)
    if not runner.iter or not path.is_file():
        return
    known = hub.get_info(KEY, [])
    scores = [
        score for score in json.loads(path.read_text(encoding='utf-8'))
        if score[0] <= runner.iter
    ]
    if scores[:len(known)] == known:
        hub.update_info(KEY, scores)


def extend(runner: Runner, miou: float) -> List[List[float]]:
    """Return iteration and mIoU of all validations, this one last."""
    hub = runner.message_hub
    scores = [s for s in hub.get_info(KEY, []) if s[0] < runner.iter]
    scores.append([runner.iter, miou])
    hub.update_info(KEY, scores)
    with new_file(Path(runner.work_dir, FILE)) as file:
        file.write_text(json.dumps(scores), encoding='utf-8')
    return scores
