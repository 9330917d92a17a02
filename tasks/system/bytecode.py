"""Byte code that a full disk cut off.

Python takes what it wrote there for whole, and every later start ends with "marshal data too
short".

Python before 3.13.1 writes a .pyc aside and renames it, but does not look how much of it was
written (CPython's issue 126606; importlib's _write_atomic). Such a file is removed when it is met,
and the module compiled anew.

This module itself is safe from that as long as its own byte code fits into a page of 4096 bytes: of
one page all is written, or nothing, and then Python does notice.
"""

from __future__ import annotations

import contextlib
import marshal
import os
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import cache_from_source
from types import CodeType

HEADER = 16  # bytes before the code in a .pyc (PEP 552)
DAMAGE = (
    EOFError,
    ImportError,
    TypeError,
    ValueError,
)  # what marshal.loads raises, and what it leads to in importlib


def install(spec: ModuleSpec) -> None:
    """Have all modules that are loaded from now on compiled anew if their byte code can't be read.

    spec: of the module that asks for it, whose own byte code was written just now, or was whole.
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
