"""The code of an action is one of its inputs: a digest that changes when what the action does changes, and only then.

The digest covers the bytecode and constants of a function, and of every function, class and constant of this project that
it reaches. Comments, doc strings and line numbers are not part of it; the version of Python's bytecode is.
"""

from __future__ import annotations

import functools
import hashlib
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PACKAGE = "tasks."
_BOOKKEEPING = {"__module__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__", "__match_args__",
                "__dataclass_params__", "__annotations__"}


class _Unloaded(str):
    """The file of a module of ours that is imported only when needed."""


@functools.cache
def code_id(function: Callable[..., Any]) -> str:
    """Return the digest (16 hex digits) of what `function` does, with all that it calls in this project."""
    parts: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = [(f"{function.__module__}.{function.__qualname__}", function)]
    while waiting:
        name, thing = waiting.pop()
        if name in parts:
            continue
        if isinstance(thing, types.FunctionType):
            parts[name] = _code_digest(thing.__code__, thing.__doc__) + _text(thing.__defaults__)
            waiting.extend(_reached(thing))
        elif isinstance(thing, type):
            parts[name] = ""
            waiting.extend((f"{name}.{key}", _unwrapped(member)) for key, member in vars(thing).items()
                           if key not in _BOOKKEEPING)
        elif isinstance(thing, _Unloaded):
            parts[name] = hashlib.sha256(Path(thing).read_bytes()).hexdigest()
        else:
            parts[name] = _text(thing)
            waiting.extend((f"{name}.{number}", function) for number, function in enumerate(_functions_in(thing)))
    whole = "\n".join(f"{name} {parts[name]}" for name in sorted(parts))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _reached(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The project's own functions, classes and constants that a function names, directly or through a module."""
    names = set(_names(function.__code__))
    space = function.__globals__
    for name in names:
        if name.startswith(PACKAGE):  # an import inside the function: not loaded now, so its file stands for it
            path = Path(__file__).parents[2] / (name.replace(".", "/") + ".py")
            if path.exists():
                yield name, _Unloaded(path)
        elif name in space:
            thing = space[name]
            if isinstance(thing, types.ModuleType):
                if thing.__name__.startswith(PACKAGE):
                    for attribute in names & vars(thing).keys():
                        yield from _ours(f"{thing.__name__}.{attribute}", vars(thing)[attribute])
            else:
                yield from _ours(f"{function.__module__}.{name}", thing)


def _ours(name: str, thing: Any) -> Iterator[tuple[str, Any]]:
    thing = _unwrapped(thing)
    if isinstance(thing, types.FunctionType | type):
        if thing.__module__.startswith(PACKAGE):
            yield f"{thing.__module__}.{thing.__qualname__}", thing
    elif not isinstance(thing, types.ModuleType):
        yield name, thing


def _unwrapped(thing: Any) -> Any:
    """The function inside a property, a cached or static method, or a decorator that left `__wrapped__`."""
    for attribute in ("fget", "func", "__func__", "__wrapped__"):
        if isinstance(inner := getattr(thing, attribute, None), types.FunctionType):
            return inner
    return thing


def _functions_in(thing: Any) -> Iterator[types.FunctionType]:
    """Functions of ours that a container holds."""
    if isinstance(thing, dict):
        thing = tuple(thing.values())
    if isinstance(thing, tuple | list):
        for item in thing:
            if isinstance(item, types.FunctionType) and item.__module__.startswith(PACKAGE):
                yield item
            else:
                yield from _functions_in(item)


def _text(thing: Any) -> str:
    """A description that is the same in every process: no addresses, no order that follows the hash seed."""
    if isinstance(thing, str | bytes | int | float | bool | None | re.Pattern | Path):
        return repr(thing)
    if isinstance(thing, dict):
        return "{" + ",".join(f"{_text(key)}:{_text(value)}" for key, value in thing.items()) + "}"
    if isinstance(thing, tuple | list):
        return "(" + ",".join(map(_text, thing)) + ")"
    if isinstance(thing, set | frozenset):
        return "{" + ",".join(sorted(map(_text, thing))) + "}"
    return type(thing).__name__


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _code_digest(code: types.CodeType, doc: str | None = None) -> str:
    """The digest of one code object: bytecode, names and constants, but neither the doc string nor where it stands."""
    digest = hashlib.sha256(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            digest.update(_code_digest(constant).encode())
        elif constant is not doc and constant != doc:
            digest.update(_text(constant).encode())
    return digest.hexdigest()[:16]
