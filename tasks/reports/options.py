"""Options of reports: those behind a name, where doit's parser ends, and files to write."""

from __future__ import annotations

import getopt
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tasks.system.errors import PiggyError


class Filled:
    """The type of an option that takes a text, for doit: an empty one is no value."""

    def __init__(self, long: str) -> None:
        """Name the option, without its dashes."""
        self._long = long

    def __call__(self, text: str) -> str:
        """Return the text.

        Raises:
            PiggyError: It is empty, as a variable of a script may be.
        """
        if not text:
            raise PiggyError(f"--{self._long}= has no value", "leave the option out, or give one")
        return text


class Natural:
    """The type of an option that takes a whole number, for doit; there are none below 0."""

    def __init__(self, long: str) -> None:
        """Name the option, without its dashes."""
        self._long = long

    def __call__(self, text: str) -> int:
        """Return the number.

        Raises:
            PiggyError: It is none.
        """
        if not re.fullmatch("[0-9]{1,9}", text):
            raise PiggyError(
                f"--{self._long}= takes a whole number, 0 or more, not '{text}'",
                f"digits, nine at most: --{self._long}=4",
            )
        return int(text)


def described(
    asked: type[msgspec.Struct],
    helps: Mapping[str, str],
    more: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return options as doit describes them.

    Args:
        asked: The struct that holds them, with their defaults.
        helps: The help of each.
        more: What is not as usual of some: "long", "short", "inverse".
    """
    return [
        {
            "name": field.name,
            "short": "",
            "long": field.name,
            "type": _type(field.default, str(more.get(field.name, {}).get("long", field.name))),
            "default": field.default,
            "help": helps[field.name],
            **more.get(field.name, {}),
        }
        for field in msgspec.structs.fields(asked)
    ]


def _type(default: object, long: str) -> Callable[[str], Any]:
    """Return what reads the value of an option, by its default; bool for one without a value."""
    if isinstance(default, bool):
        return bool
    return Filled(long) if isinstance(default, str) else Natural(long)


def split(
    command: str, names: Sequence[str], params: Sequence[Mapping[str, Any]]
) -> tuple[list[str], dict[str, Any]]:
    """Return the names among words, and the options among them by their names.

    Args:
        command: The report's name, for messages.
        names: The words from the first name on.
        params: The options, as doit describes them.

    Raises:
        PiggyError: An option is none.
    """
    fields: dict[str, Mapping[str, Any]] = {}
    short = ""
    for one in params:
        fields[f"--{one['long']}"] = one
        if one["short"]:
            fields[f"-{one['short']}"] = one
            short += f"{one['short']}{':' * (one['type'] is not bool)}"
        if one.get("inverse"):
            fields[f"--{one['inverse']}"] = {**one, "inverted": True}
    known = [
        name[2:] + "=" * (one["type"] is not bool)
        for name, one in fields.items()
        if name.startswith("--")
    ]
    found: dict[str, Any] = {}
    try:
        later, rest = getopt.gnu_getopt(list(names), short, known)
        for name, value in later:
            one = fields[name]
            found[one["name"]] = (
                not one.get("inverted") if one["type"] is bool else one["type"](value)
            )
    except (getopt.GetoptError, ValueError) as error:
        raise PiggyError(
            f"doit {command}: {error}", f"'doit help {command}' shows the options"
        ) from None
    return rest, found


def target(option: str, word: str) -> Path:
    """Return the file that an option names, to be written whole and renamed.

    A link stays: what it leads to is written.

    Args:
        option: The option, for messages.
        word: Its value.

    Raises:
        PiggyError: It is no place for a file: what is no regular file must not be replaced.
    """
    said = f"{option}={word}"
    try:
        path = Path(word).expanduser()
        if path.is_symlink():
            path = path.resolve()
        there, folder = path.exists(), path.is_dir()
    except (OSError, RuntimeError) as error:  # RuntimeError: no such user, links in a circle
        raise PiggyError(f"{said} can't be written: {error}", "name another file") from None
    if folder or word.endswith("/"):
        raise PiggyError(f"{said} is a folder", f"name a file in it: {option}={path / 'FILE'}")
    if there and not path.is_file():
        raise PiggyError(f"{said} is no regular file", "a file is written whole and renamed")
    if not path.parent.is_dir():
        raise PiggyError(f"{said}: there is no folder {path.parent}", "make it first")
    return path
