"""Recovery from byte code (.pyc) that a full disk truncated.

Python before 3.13.1 writes a .pyc aside and renames it, but does not check how many bytes were
written (CPython's issue 126606; importlib's _write_atomic). Every later start then ends with
"marshal data too short". This module removes such a file when it is loaded, and compiles the module
again.

This module itself is safe as long as its own byte code fits into a page of 4096 bytes: of one page
the file system writes all or nothing, and Python notices the latter.
"""

from __future__ import annotations

import contextlib
import marshal
import os
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import cache_from_source
from types import CodeType

HEADER = 16  # bytes before the code in a .pyc (PEP 552)
# What marshal.loads raises for damaged byte code, and what importlib makes of it.
DAMAGE = (EOFError, ImportError, TypeError, ValueError)


def install(spec: ModuleSpec) -> None:
    """Patch importlib to compile a module again if its byte code can't be read.

    It applies to all modules that are loaded from now on.

    Args:
        spec: That of the calling module. Its byte code was loaded, or was written just now; in the
            latter case it is checked here, and removed if it is damaged.
    """
    plain = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        try:
            return plain(loader, name)
        except DAMAGE:
            try:
                os.unlink(cache_from_source(loader.path))
            except OSError:  # there is none, or it is not ours to remove
                return loader.source_to_code(loader.get_data(loader.path), loader.path)
            return plain(loader, name)

    SourceFileLoader.get_code = get_code  # type: ignore[assignment,method-assign]
    with contextlib.suppress(OSError):
        try:
            with open(spec.cached or "", "rb") as stream:
                marshal.loads(stream.read()[HEADER:])
        except DAMAGE:
            os.unlink(spec.cached or "")
