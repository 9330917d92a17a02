"""Options of reports, of which some may stand after a name: doit's parser ends at the first one."""

from __future__ import annotations

import getopt
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.system.errors import PiggyError


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
