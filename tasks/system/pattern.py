"""Regular expressions that are compiled when they are first used.

A run loads some 130 modules, most of them for tasks that turn out to be up to date. Compiling their
170 expressions took a quarter of the time of a run with nothing to do.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr, cast

_NAMES = frozenset(name for name in dir(re.Pattern) if not name.startswith("_")) - {"pattern"}


class Pattern:
    """An expression that is compiled at its first use, and from then on is a compiled one.

    Attributes:
        pattern: The expression as it is written.
        given: The flags that were given: those of the module `re`.
    """

    def __init__(self, expression: str | bytes, given: int) -> None:
        self.pattern = expression
        self.given = given

    def __getattr__(self, name: str) -> Any:
        """Return a method or an attribute of the compiled expression, and keep it for the next."""
        if name not in _NAMES:  # nobody who only looks at this compiles it
            raise AttributeError(name)
        found = getattr(re.compile(self.pattern, self.given), name)
        self.__dict__[name] = found
        return found


def pattern(expression: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """Return an expression that is compiled when it is first used.

    It has the methods of a compiled one. The functions of the module `re`, and libraries that ask
    what it is, don't take it.

    Args:
        expression: What re.compile() is given. One that is wrong is found when it is used.
        flags: Those of re.compile().
    """
    return cast("re.Pattern[AnyStr]", Pattern(expression, flags))
