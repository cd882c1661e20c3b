"""What calls take: seconds, in turns, and those of modules in milliseconds."""
from functools import partial
from statistics import median
from timeit import Timer
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import torch
import torch.nn as nn
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.benchmark import timer

from .words import reason


def seconds(functions: Dict[Any, Callable[[], Any]],
            rounds: int,
            least: float = 0.) -> Dict[Any, List[float]]:
    """Time functions in turns, that is, under the same conditions.

    Python's Timer with PyTorch's clock, which waits for the device: PyTorch's
    Timer would call a function three times to time it once.

    Args:
        functions: By name. The first round, in which they compile, does not
            count.
        rounds: How many are timed.
        least: Seconds that a function is repeated for in each round; another
            that does not count tells how often.

    Returns:
        The seconds of a call in each round, by name.
    """
    times: Dict[Any, List[float]] = {name: [] for name in functions}
    repeats = dict.fromkeys(functions, 1)
    warm_up = 2 if least else 1
    steps = [(i, name) for i in range(-warm_up, rounds) for name in functions]
    for i, name in track(
            steps, 'measuring', console=Console(stderr=True), transient=True):
        number = repeats[name]
        elapsed = Timer(functions[name], timer=timer).timeit(number) / number
        if i >= 0:
            times[name].append(elapsed)
        else:
            repeats[name] = max(int(least / elapsed), 1)
    return times


def ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """Median of the ratios within a round: a drifting clock cancels out."""
    return median(a / b for a, b in zip(times, reference))


class Case(NamedTuple):
    """A module that is timed in training and in evaluation.

    Args:
        module: Whose mode is set.
        train: Its forward in training: one tensor or several.
        predict: Its forward in evaluation.
        inputs: Those that get a gradient.
    """
    module: nn.Module
    train: Callable[[], Any]
    predict: Callable[[], Any]
    inputs: Sequence[Tensor] = ()


def train(case: Case) -> None:
    """A forward and a backward pass."""
    case.module.train().zero_grad()
    for x in case.inputs:
        x.grad = None
    outputs = case.train()
    if isinstance(outputs, Tensor):
        outputs = (outputs, )
    torch.autograd.backward(outputs, [torch.ones_like(y) for y in outputs])


@torch.no_grad()
def predict(case: Case) -> None:
    """A forward pass in evaluation."""
    case.module.eval()
    case.predict()


def build(
    builders: Dict[str, Callable[[], Case]]
) -> Tuple[Dict[str, Case], Dict[str, str]]:
    """Build cases, and train each for a step.

    Returns:
        Those that run, and why the others do not, by name.
    """
    cases: Dict[str, Case] = {}
    errors: Dict[str, str] = {}
    for name, builder in builders.items():
        try:
            case = builder()
            train(case)
        # whatever mmseg or a device raises for what it cannot run
        except Exception as error:
            errors[name] = reason(error)
        else:
            cases[name] = case
    return cases, errors


def compare(cases: Dict[str, Case], rounds: int) -> Dict[str, dict]:
    """Time a training step and a forward in evaluation of modules, in turns.

    Returns:
        Of each case the medians train_ms and predict_ms, and train_ratio and
        predict_ratio, which are over the first.
    """
    functions = {
        (name, what.__name__): partial(what, case)
        for name, case in cases.items()
        for what in (train, predict)
    }
    times = seconds(functions, rounds)
    first = next(iter(cases), None)
    rows: Dict[str, dict] = {name: {} for name in cases}
    for (name, what), own in times.items():
        rows[name][f'{what}_ms'] = median(own) * 1e3
        rows[name][f'{what}_ratio'] = ratio(own, times[first, what])
    return rows
