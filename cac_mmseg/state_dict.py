"""State dicts that say which layout they are of."""
from typing import Any

from torch import Tensor


class Versioned:
    """Mixed in before an ``nn.Module``: refuses state dicts of later layouts.

    PyTorch saves ``_version`` with the weights. Whoever renames or reshapes a
    parameter raises it by one, and converts earlier layouts in
    ``_load_from_state_dict``, which PyTorch calls with the saved version.

    Raises:
        ValueError: In ``load_state_dict``, if the layout is of a later
            version, which would be read wrongly.
    """
    _version = 1

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str,
                              local_metadata: dict, *args: Any) -> None:
        # a plain dict of tensors has no version, and is taken as the first
        version = local_metadata.get('version') or 1
        if version > self._version:
            raise ValueError(
                f'{type(self).__name__} was saved in layout {version}, and '
                f'this cac_mmseg knows layouts up to {self._version}: update '
                'it (pip install --upgrade cacnet-mmseg)')
        super()._load_from_state_dict(state_dict, prefix, local_metadata,
                                      *args)
