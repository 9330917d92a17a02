"""What makes each start of doit short, and safe from what an earlier one left.

A run with nothing to do is mostly loading: of the processor time of `doit list`, 134 ms, Python's
byte code saves 130 ms and the garbage collector that is off 10 ms; at the end of a run that did
nothing, `end` saves 15 ms (measured on one machine, Python 3.11). The byte code lies where Python
puts it, or nowhere, as the user's PYTHONDONTWRITEBYTECODE and PYTHONPYCACHEPREFIX say.

dodo.py calls `begin` before anything else is loaded, so this module's own byte code must fit into
a page (see system/bytecode.py); a test says whether it does.
"""

from __future__ import annotations

import gc
import sys
from importlib.machinery import ModuleSpec

from tasks.system import bytecode


def begin(spec: ModuleSpec) -> None:
    """Prepare the process to load all modules, and to say something.

    Args:
        spec: Of dodo.py, whose own byte code is looked at, too.
    """
    gc.disable()  # nothing that is loaded goes away again
    bytecode.install(spec)
    from tasks.system import crowd, stdio

    crowd.crowd()  # the clock runs from here
    stdio.install()


def loaded() -> None:
    """Collect garbage from now on, but never look through what is there.

    Called before the first task runs: what was loaded stays, and to look through it again and again
    would take as long as some of the tasks.
    """
    gc.freeze()
    gc.enable()


def end() -> None:
    """Have Python end without looking through all that was loaded once more."""
    gc.freeze()


def given() -> dict[str, str]:
    """Return the `name=value` words of the command line, of which doit decides what they are.

    doit.get_var gives the value of one name. All are needed, so that an unknown one is refused.
    """
    from doit import get_var

    names = [word.partition("=")[0] for word in sys.argv[1:] if "=" in word]
    return {name: value for name in names if (value := get_var(name)) is not None}
