"""How a program ends that has to put files back."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def by_exception() -> None:
    """Have SIGTERM end this program by an exception, so that `finally` puts files back.

    A second one is ignored: timeout(1) sends one to the process and one to its group.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(143)

    signal.signal(signal.SIGTERM, end)
