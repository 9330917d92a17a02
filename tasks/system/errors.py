"""What goes wrong, said once and clearly: one sentence, and a hint on what to do about it.

Everything below the edge raises PiggyError; the edge (the action wrapper in `graph`, and `dodo.py`
at load time) turns it into a message and an exit status. Any other exception is a bug of ours, and
only such a one shows a traceback.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator

from tasks.system.terminal import printable

LONGEST = (
    200  # characters of a word that may be a misspelt name; to compare a longer one takes its time
)


class PiggyError(Exception):
    """A failure that the user can do something about.

    message: one sentence that names the file, key or command at fault.
    hint:    what to do about it ("" when there is nothing sensible to say). One that begins with a
        new line holds details, in lines of their own.
    status:  what doit is to end with.

    Either may hold what others wrote (a file's name, a program's last lines): what a terminal would
    obey in it is made visible.
    """

    status = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = printable(message), printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        if self.hint.startswith("\n"):
            return self.message + self.hint.rstrip()
        return f"{self.message}\n  hint: {self.hint}" if self.hint.strip() else self.message


@contextlib.contextmanager
def in_a_sentence(kind: type[Exception]) -> Iterator[None]:
    """Raise errors of the body that the user can mend as doit's `kind`, while all is loaded."""
    try:
        yield
    except PiggyError as error:
        raise kind(str(error)) from None
    except OSError as error:
        raise kind(
            printable(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        ) from None


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known word nearest to `word`, or "" when none is near.

    Case makes no distance.
    """
    if len(word) > LONGEST:
        return ""
    spelled = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(spelled), n=1, cutoff=0.6)
    return f" Did you mean '{spelled[close[0]]}'?" if close else ""
