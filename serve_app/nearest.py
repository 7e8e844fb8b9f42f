"""What somebody probably meant who wrote a name that doesn't exist."""

import difflib
from collections.abc import Iterable


def near_miss(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The end of an error message: the nearest name, or what to say where none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else otherwise
    return f"; {hint}" if hint else ""
