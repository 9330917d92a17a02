"""A function that works beside the body of a `with`, in a thread of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tasks.system.process import stop_all


@contextlib.contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Run a function in a thread of its own beside the body of a `with`, which it ends with.

    If the body is interrupted (Ctrl-C), every program is ended, so that the function ends, too.
    What the function raises is raised after the body.

    Args:
        work: The function.
    """
    from concurrent.futures import ThreadPoolExecutor, wait

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        try:
            yield
            wait([done])
        except BaseException as error:
            if not isinstance(error, Exception):
                stop_all(lambda: not done.done())
            raise
    done.result()
