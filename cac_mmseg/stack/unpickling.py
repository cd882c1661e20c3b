"""Unpickle files of ``torch.save`` without running code that they name."""
import pickle
from collections import OrderedDict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, ContextManager, Dict, List, Set, Tuple, Union

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

# functions that mmengine saves, of these classes
FUNCTIONS = {
    HistoryBuffer: ('mean', 'min', 'max', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}
# what PyTorch reads anyway, but for tensors
PLAIN = {
    '_codecs.encode', 'builtins.bytearray', 'builtins.complex', 'builtins.set',
    'collections.Counter', 'torch.Size', 'torch.device'
}


def _function(owner: Any, name: str) -> Callable:
    """Restricted replacement for ``getattr``.

    With any other owner a file could reach everything that Python can do.
    """
    if not isinstance(owner, type) or name not in FUNCTIONS.get(owner, ()):
        raise pickle.UnpicklingError(f'it asks for {name!r} of {owner!r}')
    return getattr(owner, name)


def allow_log() -> ContextManager:
    """Context in which ``weights_only=True`` reads all that mmengine saves.

    Training checkpoints hold more than weights: a log of numpy arrays, the
    state of the schedulers, and what a config says of the data set. PyTorch's
    list of safe globals, which is global to the process, is restored on exit.
    """
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64().__reduce__()[0]
    functions = [
        (function, f'numpy.{core}.multiarray.{name}')
        for core in ('core', '_core')  # of numpy 1 and 2
        for function, name in ((reconstruct, '_reconstruct'), (scalar,
                                                               'scalar'))
    ]
    classes = {*FUNCTIONS, ConfigDict, np.ndarray, np.dtype}
    classes |= {type(np.dtype(code)) for code in '?bBhHiIlLqQefdU'}
    # with names: OneDL's mmengine removes entries without one after each load
    return torch.serialization.safe_globals([
        *functions, (_function, 'builtins.getattr'),
        *((c, f'{c.__module__}.{c.__qualname__}') for c in classes)
    ])


def read(path: Union[str, Path],
         map_location: Any = 'cpu') -> Tuple[Any, List[str]]:
    """Read a file without importing what is neither mmengine's nor a tensor's.

    Args:
        path: A file that ``torch.save`` wrote.
        map_location: As in ``torch.load``.

    Returns:
        The content, and the names of what was not imported. If there are any,
        the content is no more than tensors and builtin types, with
        :class:`StandIn` for everything else.

    Raises:
        Exception: Of any kind, if it is no such file.
    """
    with allow_log():
        try:
            return torch.load(
                path, map_location=map_location, weights_only=True), []
        except pickle.UnpicklingError:
            safe = {
                _name(entry)
                for entry in torch.serialization.get_safe_globals()
            }
    names: Set[str] = set()
    content = torch.load(
        path,
        map_location=map_location,
        weights_only=False,  # no matter what it names, it is not imported
        pickle_module=_inert_pickle(names))
    return content, sorted(names - safe - PLAIN or names)


def _name(entry: Any) -> str:
    """Return how a pickle refers to an entry of PyTorch's safe globals."""
    return entry[1] if isinstance(
        entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'


class _Inert(type):

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls

    def __setitem__(cls, key: Any, value: Any) -> None:
        pass


class StandIn(metaclass=_Inert):
    """What a file names and must not be imported, and its instances.

    It ignores whatever a pickle tells it to do: to be called, to be created,
    to be a list, a dict or a set, and to restore its state.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls

    @staticmethod
    def append(*args: Any) -> None:
        pass

    __setstate__ = add = extend = append


def _inert_pickle(names: Set[str]) -> Any:
    """Return a stand-in for the module ``pickle``, which imports nothing.

    Args:
        names: Filled with what files name, but for the builders of tensors.
    """
    # as partial: a pickle can set attributes of what it names
    builders: Dict[str, Callable] = {
        f'torch._utils.{name}': partial(getattr(torch._utils, name))
        for name in ('_rebuild_tensor', '_rebuild_tensor_v2',
                     '_rebuild_parameter')
    }

    class Unpickler(pickle.Unpickler):

        def find_class(self, module: str, name: str) -> Any:
            module = module.replace('__builtin__', 'builtins')  # of Python 2
            path = f'{module}.{name}'
            if path == 'collections.OrderedDict':
                return OrderedDict
            if path not in builders:
                names.add(path)
            return builders.get(path, StandIn)

    return SimpleNamespace(
        __name__='pickle',
        Unpickler=Unpickler,
        load=lambda file, **options: Unpickler(file, **options).load())
