"""Errors of which a user needs the message and not the trace."""


class UserError(ValueError):
    """What a person can mend: an option, a file, a config, an installation.

    ``python -m cac_mmseg`` prints its message below the command's usage. Any
    other exception keeps its trace, as it is a fault of this package.
    """


class MissingFileError(UserError, FileNotFoundError):
    """A :class:`UserError` about a file or a folder that is not there."""

    # OSError would print no more than the first of several arguments
    __str__ = UserError.__str__
