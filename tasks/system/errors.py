"""Errors that the user can mend: one sentence, and a hint on what to do.

All code raises PiggyError. The action wrapper in `graph`, and `dodo.py` at load time, turn it into
a message and an exit status. Any other exception is a bug of ours and shows a traceback.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
from collections.abc import Iterable, Iterator

from tasks.system.terminal import printable

# Characters of a word that may be a misspelt name; difflib is slow for longer ones.
LONGEST = 200


class PiggyError(Exception):
    """A failure that the user can do something about.

    Control characters in message and hint are escaped, as both may hold foreign text (a file's
    name, a program's last lines).

    Attributes:
        message: One sentence that names the file, key or command at fault.
        hint: What to do about it; "" for none. A hint that begins with a newline holds details, in
            lines of their own.
        status: doit's exit status.
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
    """Turn PiggyError and OSError of the body into an error that doit prints without a traceback.

    Args:
        kind: doit's class of errors for a faulty dodo.py.
    """
    try:
        yield
    except PiggyError as error:
        raise kind(str(error)) from None
    except OSError as error:
        raise kind(str(in_words(error))) from None


def in_words(error: OSError) -> PiggyError:
    """Return what the system said of a file, with what to do."""
    where = (
        os.fsdecode(error.filename)
        if isinstance(error.filename, bytes)
        else str(error.filename or "a file")
    )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PiggyError(
            f"no space left on the disk while writing {where}",
            "free some space and run doit again; what "
            "was finished is kept. 'build=' and 'dl=' can lie on another disk",
        )
    return PiggyError(
        f"{where}: {error.strerror or error}",
        "check the path and its permissions, then run doit again",
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known word nearest to `word`, or "" if none is near.

    Upper and lower case count as equal.
    """
    if len(word) > LONGEST:
        return ""
    spelled = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(spelled), n=1, cutoff=0.6)
    return f" Did you mean '{spelled[close[0]]}'?" if close else ""
