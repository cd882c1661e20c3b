"""State dicts that say which layout they are of."""
from typing import Any, Callable, Dict

from torch import Tensor

StateDict = Dict[str, Tensor]


class Versioned:
    """Mixed in before an ``nn.Module``: loads what earlier layouts saved.

    When names or shapes in the state dict change, ``_version`` goes up by one,
    and ``migrations[v](state_dict, prefix)`` turns layout v into v + 1.

    Raises:
        ValueError: In ``load_state_dict``, if the layout is of a later
            version, which would be read wrongly.
    """
    _version = 1
    migrations: Dict[int, Callable[[StateDict, str], None]] = {}

    def _load_from_state_dict(self, state_dict: StateDict, prefix: str,
                              local_metadata: dict, *args: Any) -> None:
        # a plain dict of tensors does not say, and is taken as the first
        version = local_metadata.get('version') or 1
        if version > self._version:
            raise ValueError(
                f'{type(self).__name__} was saved in layout {version}, and '
                f'this cac_mmseg knows layouts up to {self._version}: update '
                'it (pip install --upgrade cacnet-mmseg)')
        for earlier in range(version, self._version):
            self.migrations[earlier](state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, local_metadata,
                                      *args)
