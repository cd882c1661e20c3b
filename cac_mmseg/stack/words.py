"""Words of what commands print."""
from ..errors import UserError


def counted(number: int, noun: str, plural: str = '') -> str:
    """Return a number with its noun.

    Args:
        plural: Of the noun, where it is not that with an s.

    >>> counted(1, 'page'), counted(2, 'page'), counted(2, 'class', 'classes')
    ('1 page', '2 pages', '2 classes')
    """
    return f'{number} {noun if number == 1 else plural or noun + "s"}'


def reason(error: Exception) -> str:
    """Return what an error says, in a line."""
    first = (str(error).strip().splitlines() or [''])[0]
    if isinstance(error, UserError):
        return first
    return f'{type(error).__name__}: {first}'
