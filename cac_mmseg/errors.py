"""Errors of which a user needs the message and not the trace."""
from pathlib import Path
from typing import List, Union


class UserError(ValueError):
    """What a person can mend: an option, a file, a config, an installation.

    ``python -m cac_mmseg`` prints its message below the command's usage. Any
    other exception keeps its trace, as it is a fault of this package.
    """


class MissingFileError(UserError, FileNotFoundError):
    """A :class:`UserError` about a file or a folder that is not there."""

    # OSError would print no more than the first of several arguments
    __str__ = UserError.__str__


class UnsafeError(UserError):
    """A :class:`UserError` about a checkpoint that only its code can restore.

    Args:
        path: The checkpoint.
        names: What reading it would import.
    """

    def __init__(self, path: Union[str, Path], names: List[str]) -> None:
        super().__init__(
            f'{path} cannot be resumed from safely: reading it would import '
            f'{", ".join(names)}, which mmengine does not save by itself. To '
            f'go on with its weights only, set load_from={path} and '
            'resume=False. To read all of it, if you trust it, give these '
            'to torch.serialization.add_safe_globals in a module of the '
            "config's custom_imports")
