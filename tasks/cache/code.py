"""The code of an action is one of its inputs.

A digest that changes when what the action does changes, and only then.

The digest covers the bytecode and constants of a function, and of every function, class and
constant of this project that it reaches. Comments, doc strings and line numbers are not part of it;
the version of Python's bytecode is.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import inspect
import os
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tasks.system.pattern import Pattern

PACKAGE = "tasks."
TOP = Path(__file__).parents[2]
_BOOKKEEPING = {
    "__module__",
    "__doc__",
    "__qualname__",
    "__firstlineno__",
    "__static_attributes__",
    "__match_args__",
    "__dataclass_params__",
    "__annotations__",
    "__annotate__",
    "__annotate_func__",
    "__annotations_cache__",
    "__dict__",
    "__weakref__",
    "__msgspec_cache__",  # put there when msgspec first reads such a class
}
_PLAIN = (str, int, bytes, type(None), float, complex, range)
_HAS_DOCSTRING = getattr(inspect, "CO_HAS_DOCSTRING", 0)  # of Python 3.14 and later


class _File(str):
    """A file of ours: one that the code names, or a module's that is imported only when needed."""


Node = types.FunctionType | type | _File  # what has content of its own


@functools.cache
def code_id(function: Callable[..., Any]) -> str:
    """Return the digest of what `function` does, with all that it calls here.

    It has 16 hex digits.
    """
    return hashlib.sha256("\n".join(sorted(_reached(function).values())).encode()).hexdigest()[:16]


def files_of(function: Callable[..., Any]) -> list[str]:
    """Return the files whose content is a part of that digest, besides modules that are loaded."""
    return sorted(node for node in _reached(function) if isinstance(node, _File))


def _reached(function: Callable[..., Any]) -> dict[Any, str]:
    """All that a function reaches in this project, itself included, each with its description."""
    waiting: list[Any] = [function]
    said: dict[Any, str] = {}
    while waiting:
        node = waiting.pop()
        if node not in said:
            said[node], reached = _node(node)
            waiting.extend(reached)
    return said


@functools.cache
def _node(node: Node) -> tuple[str, tuple[Node, ...]]:
    """Say what one function, class or file is, without what it reaches; and list that."""
    if isinstance(node, _File):
        content = (
            hashlib.sha256(Path(node).read_bytes()).hexdigest() if Path(node).is_file() else ""
        )
        return f"{node[len(str(TOP)) :]}:{content}", ()
    things: list[tuple[str, Any]]
    if isinstance(node, types.FunctionType):
        own = _code_digest(node.__code__)
        things = [
            ("defaults", node.__defaults__),
            ("keywords", node.__kwdefaults__),
            ("cells", _closed_over(node)),
        ]
        things += _named(node)
    else:
        own = ""
        if issubclass(
            node, msgspec.Struct
        ):  # whose annotations decide how data is converted; elsewhere they do nothing
            own = _text(
                (
                    vars(node).get("__annotations__"),
                    node.__struct_fields__,
                    node.__struct_defaults__,
                )
            )
        things = [(key, member) for key, member in vars(node).items() if key not in _BOOKKEEPING]
        things += [(f"base {number}", base) for number, base in enumerate(node.__bases__)]
    texts = [own]
    reached: list[Node] = []
    for name, thing in things:
        texts.append(name if isinstance(thing, _File) else f"{name} {_text(thing)}")
        reached += _nodes(thing)
    whole = hashlib.sha256("\n".join(texts).encode(errors="surrogatepass")).hexdigest()
    return f"{node.__module__}.{node.__qualname__} {whole}", tuple(reached)


def _named(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the globals that a function names, itself or by a module of ours, in a fixed order."""
    names = sorted({*_names(function.__code__)})
    space = function.__globals__
    for name in names:
        if f"{name}.".startswith(
            PACKAGE
        ):  # an import inside the function: not loaded now, so its file stands for it
            place = f"{TOP}/{name.replace('.', '/')}"
            for path in (
                f"{place}.py",
                *(f"{place}/{other}.py" for other in names),
            ):  # `from PACKAGE import MODULE`
                if os.path.isfile(path):
                    yield path[len(str(TOP)) :], _File(path)
        elif name in space:
            thing = space[name]
            if not isinstance(thing, types.ModuleType):
                yield name, thing
            elif thing.__name__.startswith(PACKAGE):
                for attribute in names:
                    if attribute in vars(thing):
                        yield f"{name}.{attribute}", vars(thing)[attribute]


def _nodes(thing: Any) -> Iterator[Node]:
    """Yield the functions, classes and files of ours that a thing is or holds."""
    if isinstance(thing, str | int | bytes | None):
        if isinstance(thing, _File):
            yield thing
        return
    if isinstance(thing, Path):
        if thing.is_absolute() and thing.is_relative_to(TOP):
            yield _File(thing)
        return
    thing = _unwrapped(thing)
    if isinstance(thing, types.FunctionType | type):
        if thing.__module__.startswith(PACKAGE):
            yield thing
    elif not isinstance(thing, types.ModuleType):
        for item in _items(thing):
            yield from _nodes(item)


def _unwrapped(thing: Any) -> Any:
    """Return the function inside a property, a cached or static method, or a decorator.

    A decorator leaves it in `__wrapped__`.
    """
    if (
        isinstance(thing, functools.partial)
        or isinstance(thing, types.FunctionType)
        and not hasattr(thing, "__wrapped__")
    ):
        return thing
    for attribute in ("fget", "func", "__func__", "__wrapped__"):
        if isinstance(inner := getattr(thing, attribute, None), types.FunctionType):
            return inner
    return thing


def _closed_over(function: types.FunctionType) -> tuple[Any, ...]:
    try:
        return tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError:  # a cell that is still empty
        return ()


def _items(thing: Any) -> tuple[Any, ...]:
    """Return what a container or a record holds, in an order that is always the same.

    Records are dataclasses, msgspec structs and partial calls.
    """
    if isinstance(thing, tuple | list):
        return tuple(thing)
    if isinstance(thing, dict | types.MappingProxyType):
        return tuple(item for pair in thing.items() for item in pair)
    if isinstance(thing, set | frozenset):
        return tuple(sorted(thing, key=_text))
    if isinstance(thing, functools.partial):
        return (thing.func, thing.args, thing.keywords)
    if isinstance(thing, dataclasses.Field):
        return (thing.name, thing.default, thing.default_factory, thing.init, thing.kw_only)
    if isinstance(thing, msgspec.Struct):
        return tuple(getattr(thing, name) for name in thing.__struct_fields__)
    if hasattr(type(thing), "__dataclass_fields__"):
        return tuple(getattr(thing, field.name) for field in dataclasses.fields(thing))
    return ()


def _text(thing: Any) -> str:
    """Return a description that is the same in every process.

    No addresses, no order that follows the hash seed.
    """
    if isinstance(thing, enum.Enum):  # before numbers, since some are both
        return f"{type(thing).__qualname__}.{thing.name}"
    if isinstance(thing, _PLAIN):
        return repr(thing)
    if isinstance(thing, re.Pattern):  # its repr is cut off
        return f"re({thing.pattern!r}, {thing.flags})"
    if isinstance(thing, Pattern):
        return f"re({thing.pattern!r}, {thing.given})"
    if isinstance(thing, Path):
        return repr(_place(thing))
    thing = _unwrapped(thing)
    if isinstance(
        name := getattr(thing, "__qualname__", None), str
    ):  # a function, a class: by name
        return f"{getattr(thing, '__module__', '')}.{name}"
    return f"{type(thing).__qualname__}({','.join(map(_text, _items(thing)))})"


def _place(path: Path) -> str:
    """Return the name of a path; of one of ours, within the project.

    (The content of a file of ours counts, too.)
    """
    return (
        f"/{path.relative_to(TOP)}"
        if path.is_absolute() and path.is_relative_to(TOP)
        else str(path)
    )


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _code_digest(code: types.CodeType) -> str:
    """Return the digest of one code object.

    Bytecode, names and constants, but neither the doc string nor where it stands.
    """
    digest = hashlib.sha256(code.co_code)
    digest.update(
        repr(
            (
                code.co_names,
                code.co_varnames,
                code.co_freevars,
                code.co_cellvars,
                code.co_argcount,
                code.co_posonlyargcount,
                code.co_kwonlyargcount,
                code.co_exceptiontable,
            )
        ).encode()
    )
    for constant in code.co_consts[1 if _documented(code) else 0 :]:
        said = _code_digest(constant) if isinstance(constant, types.CodeType) else _text(constant)
        digest.update(said.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


def _documented(code: types.CodeType) -> bool:
    """Tell whether the first constant is a doc string.

    Before 3.14 it is that, or None for none, in each function that can have one.
    """
    if _HAS_DOCSTRING:
        return bool(code.co_flags & _HAS_DOCSTRING)
    return bool(
        code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
    )  # no class body, no lambda
