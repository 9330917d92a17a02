"""What goes wrong, said once and clearly: one sentence, and a hint on what to do about it.

Everything below the edge raises PiggyError; the edge (the action wrapper in `graph`, and `dodo.py` at load time) turns
it into a message and an exit status. Any other exception is a bug of ours, and only such a one shows a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PiggyError(Exception):
    """A failure that the user can do something about.

    message: one sentence that names the file, key or command at fault.
    hint:    what to do about it ("" when there is nothing sensible to say).
    status:  what doit is to end with.
    """

    status = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known word nearest to `word`, or "" when none is near. Case makes no distance."""
    spelled = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(spelled), n=1, cutoff=0.6)
    return f" Did you mean '{spelled[close[0]]}'?" if close else ""
