"""TOML files to frozen dataclasses: an unknown key or a wrong type names the file, the key and the nearest right one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tasks.kit.errors import PiggyError, nearest

T = TypeVar("T")


def read(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises PiggyError naming the file, and the line where the syntax is wrong."""
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError as error:
        raise PiggyError(f"{path} does not exist") from error
    except OSError as error:
        raise PiggyError(f"{path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PiggyError(f"{path} is not valid TOML: {error}") from error


def convert(data: Any, kind: type[T], origin: str) -> T:
    """Turn plain data into the msgspec struct `kind`; `origin` (a file, or a file and a table) is named in any error."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise PiggyError(f"{origin}: {_in_words(str(error), kind)}") from error


def _in_words(text: str, kind: type) -> str:
    """Reword msgspec's message: `a.b` instead of `$.a.b`, and the nearest known key behind an unknown one."""
    unknown = re.match(r"Object contains unknown field `(.+?)`(?: - at `\$\.?(.*?)`)?$", text)
    if unknown:
        name, where = unknown[1], unknown[2] or ""
        return f"unknown key '{where + '.' if where else ''}{name}'.{nearest(name, _fields_at(kind, where))}"
    return re.sub(r" - at `\$\.?(.*?)`$", lambda found: f" for '{found[1]}'" if found[1] else "", text)


def _fields_at(kind: Any, where: str) -> tuple[str, ...]:
    """The field names of the struct at the dotted place `where` below `kind`."""
    for part in filter(None, re.split(r"\.|\[[^]]*\]", where)):
        info = {field.name: field.type for field in msgspec.structs.fields(kind)} if _is_struct(kind) else {}
        kind = _struct_in(info.get(part, kind))
    return tuple(field.encode_name for field in msgspec.structs.fields(kind)) if _is_struct(kind) else ()


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _struct_in(kind: Any) -> Any:
    """The struct inside Optional[...], dict[str, ...], tuple[...]; or the type itself."""
    return next((arg for arg in getattr(kind, "__args__", ()) if _is_struct(arg)), kind)
