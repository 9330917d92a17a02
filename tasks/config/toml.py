"""Convert TOML files to frozen structs; errors name the file, the key and the nearest right key."""

from __future__ import annotations

import re
import tomllib
import types
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tasks.system.errors import PiggyError, nearest
from tasks.system.files import read_regular
from tasks.system.terminal import printable

LONGEST = 4 << 20  # bytes of a file: far more than anybody writes by hand

T = TypeVar("T")


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        PiggyError: It is missing, unreadable or malformed; the message names the file and line.
    """
    try:
        text = read_regular(path, LONGEST, follow=True).decode()
        data = tomllib.loads(text)
    except FileNotFoundError as error:
        raise PiggyError(
            f"{path} {'is a link to nothing' if path.is_symlink() else 'does not exist'}"
        ) from error
    except OSError as error:
        raise PiggyError(f"{path} can't be read: {error.strerror}") from error
    except RecursionError as error:
        raise PiggyError(f"{path} is not valid TOML: its brackets are nested too deeply") from error
    # TOMLDecodeError, UnicodeDecodeError, or int()'s error for a number of too many digits
    except ValueError as error:
        raise PiggyError(f"{path} is not valid TOML: {printable(str(error))}") from error
    if re.search(r"\\(u0{4}|U0{8})", text) and (key := _with_nul(data)):
        raise PiggyError(
            f"{path}: '{key}' holds a NUL character, which no name and no argument can"
        )
    return data


def _with_nul(data: Any, where: str = "") -> str:
    """Return the first key that has a NUL character in it or in its value, "" if none has.

    TOML can write NUL only as an escape.
    """
    if isinstance(data, str):
        return where if "\0" in data else ""
    if isinstance(data, list):
        return next(filter(None, (_with_nul(item, where) for item in data)), "")
    if not isinstance(data, dict):
        return ""
    return next(
        (
            found
            for key, value in data.items()
            if (
                found := f"{where}{key}"
                if "\0" in key
                else _with_nul(value, f"{where}.{key}".lstrip("."))
            )
        ),
        "",
    )


def convert(data: Any, kind: type[T], origin: str) -> T:
    """Convert plain data to a msgspec struct.

    Args:
        data: What `read` returned, or a part of it.
        kind: The struct.
        origin: The file, or file and table, for messages.

    Raises:
        PiggyError: A key is unknown or missing, or a value has the wrong type.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise PiggyError(f"{origin}: {_in_words(error, data, kind)}") from error


def _in_words(error: msgspec.ValidationError, data: Any, kind: Any) -> str:
    """Return msgspec's message with `a.b` instead of `$.a.b`, and the nearest known key."""
    found = re.fullmatch(r"(.*?)(?: - at `(?:key in )?\$(.*)`)?", str(error), re.DOTALL)
    assert found
    where, at = _place(found[2] or "", data, kind)
    unknown = re.fullmatch(r"Object contains unknown field `(.+)`", found[1], re.DOTALL)
    if unknown:
        known = [field.encode_name for field in _fields(at)]
        return f"unknown key '{'.'.join([*where, unknown[1]])}'.{nearest(unknown[1], known)}"
    return found[1] + (f" for '{'.'.join(where)}'" if where else "")


def _place(path: str, data: Any, kind: Any) -> tuple[list[str], Any]:
    """Follow msgspec's path (`.name[...][0]`) into the data.

    For a key of a table with free names msgspec has `[...]`; it is the first key whose value is
    refused.

    Returns:
        The keys on the way, and the type at the end.
    """
    where: list[str] = []
    for name, index in re.findall(r"\.(\w+)|\[([^]]*)\]", path):
        kind = _plain(kind)
        if name:
            kind = next((field.type for field in _fields(kind) if field.encode_name == name), Any)
            where, data = [*where, name], data[name]
        elif index == "..." and isinstance(data, dict):
            kind = getattr(kind, "__args__", (Any, Any))[-1]
            key = next((key for key, value in data.items() if not _fits(value, kind)), "...")
            where, data = [*where, str(key)], data.get(key)
        else:
            kind = getattr(kind, "__args__", (Any,))[0]
            where, data = [*where, index], data[int(index)] if index.isdigit() else None
    return where, _plain(kind)


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _fields(kind: Any) -> tuple[Any, ...]:
    return msgspec.structs.fields(kind) if _is_struct(kind) else ()


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _plain(kind: Any) -> Any:
    """Return the type inside `X | None`; any other type as it is."""
    if isinstance(kind, types.UnionType):
        return next((arg for arg in kind.__args__ if _is_struct(arg)), kind)
    return kind
