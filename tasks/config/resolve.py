"""The settings in force: all sources of settings, read, checked and merged.

The last one wins: defaults, `[settings]` of configs/machines/NAME.toml, its [presets.FRAGMENT] for
what the setting `fragments` names, local.toml (then its [machines.NAME]), environment, `name=value`
on the command line. In the environment every setting is
PIGGYBACK_NAME; those in PLAIN_ENV also have their bare name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tasks.config import settings, toml
from tasks.config.settings import HELP, Settings
from tasks.system.address import hidden
from tasks.system.errors import PiggyError, nearest

PREFIX = "PIGGYBACK_"
PLAIN_ENV = ("MACHINE", "TOOLCHAIN", "KERNEL", "KERNEL_SRC", "BUSYBOX_SRC")
# How to log in at store_remote=: no settings, so that nothing shows them.
SECRETS = ("PIGGYBACK_STORE_USER", "PIGGYBACK_STORE_PASSWORD", "PIGGYBACK_STORE_TOKEN")
PATHS = (
    "build",
    "dl",
    "store",
    "store_signers",
    "store_key",
    "kernel_src",
    "busybox_src",
    "src",
    "mirror",
    "toolchain_prefix",
    "llvm",
    "buildroot_src",
    "buildroot_override",
    "buildroot_headers",
    "buildroot_site",
)
PATH_LISTS = ("fragments", "busybox_fragments", "patches", "overlays", "buildroot_fragments")
Layer = dict[str, tuple[Any, str]]  # the settings of one source: value and origin, by name
_BOOLEANS = {
    "yes": True,
    "true": True,
    "on": True,
    "1": True,
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}


class OfPreset(str):
    """The origin of a setting that comes from a table [presets.FRAGMENT], in words."""

    __slots__ = ()


class Resolved(msgspec.Struct, frozen=True):
    """The settings in force, and the origin of each: "default", a file, "environment NAME", ..."""

    values: Settings
    origins: Mapping[str, str]


def resolve(top: Path, environ: Mapping[str, str], command_line: Mapping[str, str]) -> Resolved:
    """Read, check and merge all sources of settings.

    Args:
        top: The project's folder.
        environ: The environment.
        command_line: The `name=value` words.

    Raises:
        PiggyError: A name is unknown or a value wrong; the message names the origin, the key and
            the nearest right one.
    """
    fields = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    local_file = top / "local.toml"
    local = toml.read(local_file) if os.path.lexists(local_file) else {}
    per_machine = local.pop("machines", {})
    from_env = _from_environment(environ, fields)
    from_line = {name: (value, "command line") for name, value in command_line.items()}
    machine = {
        "machine": ("pc", ""),
        **{k: (v, "") for k, v in local.items()},
        **from_env,
        **from_line,
    }["machine"][0]

    layers: list[Layer] = []
    machine_file = top / "configs" / "machines" / f"{machine}.toml"
    file = toml.read(machine_file) if _is_name(machine) and os.path.lexists(machine_file) else {}
    layers.append(_table(file.get("settings", {}), f"configs/machines/{machine}.toml [settings]"))
    layers.append({name: (value, "local.toml") for name, value in local.items()})
    if not isinstance(per_machine, dict):
        raise PiggyError("local.toml: 'machines' is a table of tables: [machines.NAME]")
    for name, table in per_machine.items():
        origin = f"local.toml [machines.{name}]"
        _known_machine(top, name, origin)
        layer = _table(table, origin)
        if name == machine:
            layers.append(layer)
        else:
            _checked(layer, fields)  # reports a typo even while another machine is selected
    layers += [from_env, from_line]
    layers[1:1] = _presets(file, layers, machine, fields)

    checked: dict[str, Any] = {}
    origins = dict.fromkeys(fields, "default")
    for layer in layers:
        checked.update(_checked(layer, fields))
        origins.update((name, origin) for name, (_, origin) in layer.items())
    values = Settings(**checked)
    _known_machine(top, values.machine, origins["machine"])
    return Resolved(values, origins)


def _presets(
    file: Mapping[str, Any], layers: list[Layer], machine: str, fields: Mapping[str, Any]
) -> list[Layer]:
    """Return the tables [presets.NAME] of a machine file that the setting `fragments` calls for.

    All of them are checked: a typo is reported even while no fragment calls for its table.

    Args:
        file: The machine file.
        layers: All other sources.
        machine: The machine.
        fields: Each setting's type.

    Raises:
        PiggyError: A table has an unknown setting or a wrong value, or it sets `fragments`, which
            calls for it.
    """
    tables = file.get("presets", {})
    if not isinstance(tables, dict):
        return []  # refused where the machine file is read
    found = {}
    for name, table in tables.items():
        origin = OfPreset(f"configs/machines/{machine}.toml [presets.{name}]")
        found[name] = _table(table, origin)
        if "fragments" in found[name]:
            raise PiggyError(
                f"{origin}: 'fragments' can't be set in a table that it calls for",
                f'in {name}.config, #include "OTHER.config" has another one with it',
            )
        _checked(found[name], fields)
    words = next((layer["fragments"][0] for layer in reversed(layers) if "fragments" in layer), "")
    if not isinstance(words, str):
        return []  # refused where the settings are checked
    called = dict.fromkeys(word.strip().removesuffix("?") for word in words.split(","))
    return [found[name] for name in called if name in found]


def _table(table: Any, origin: str) -> Layer:
    """Return the settings of a table that is for one machine only."""
    if not isinstance(table, dict):
        raise PiggyError(f"{origin}: expected a table of settings, got {_short(table)}")
    if "machine" in table:
        raise PiggyError(
            f"{origin}: 'machine' can't be set in a table that holds for one machine",
            "set it at the top of local.toml, in the environment, or on the command line",
        )
    return {name: (value, origin) for name, value in table.items()}


def _checked(layer: Layer, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Check names and types of the settings of one source; return the values by name."""
    for name, (_, origin) in layer.items():
        if name not in fields:
            raise PiggyError(
                f"{origin}: unknown setting {_short(name)}.{nearest(name, fields)}",
                "'doit settings' lists them all",
            )
    return {
        name: _typed(name, value, fields[name], origin) for name, (value, origin) in layer.items()
    }


def _from_environment(environ: Mapping[str, str], fields: Mapping[str, Any]) -> Layer:
    found: Layer = {}
    for name in PLAIN_ENV:
        if environ.get(name):
            found[name.lower()] = (environ[name], f"environment {name}")
    for name, value in environ.items():
        if name.startswith(PREFIX) and name not in SECRETS:
            key = name.removeprefix(PREFIX).lower()
            if key not in fields:
                raise PiggyError(
                    f"environment: unknown setting {_short(name)}."
                    + nearest(name, [PREFIX + field.upper() for field in fields])
                )
            found[key] = (value, f"environment {name}")
    return found


def _typed(name: str, value: Any, kind: Any, origin: str) -> Any:
    """Check one value, and convert text to the setting's type.

    Text comes from environment and command line. TOML values must have the type.
    """
    from_text = origin.startswith(("environment ", "command line"))
    try:
        found = msgspec.convert(_from_text(value, kind) if from_text else value, kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        near = nearest(value, settings.choices(kind)) if isinstance(value, str) else ""
        raise PiggyError(
            f"{origin}: setting '{name}' takes {settings.kind_in_words(kind, from_text)}, not"
            f" {hidden(_short(value))}.{near}",
            f"{name}: {HELP[name]}",
        ) from error
    if isinstance(found, str) and "\0" in found:
        raise PiggyError(f"{origin}: setting '{name}' can't hold a NUL character")
    for part in found.split(",") if name in PATH_LISTS else [found] if name in PATHS else []:
        _expandable(part.strip(), name, origin)
    return found


def _expandable(path: str, name: str, origin: str) -> None:
    """Raise PiggyError if a path begins with a ~ that can't be expanded."""
    user = path.partition("/")[0]
    whole = os.path.expanduser(path)
    if path.startswith("~") and whole.startswith("~"):
        raise PiggyError(
            f"{origin}: {name}={_short(path)}: "
            + (
                f"there is no user {_short(user[1:])}"
                if user[1:]
                else "nobody knows your home folder"
            ),
            f"write the path in full; ./{user[:40]} is a folder that is called so",
        )
    try:
        whole.encode()
    except UnicodeEncodeError:
        raise PiggyError(
            f"{origin}: {name}={_short(path)} stands for a path that is not UTF-8: {whole}",
            "write another path in full",
        ) from None


def _short(value: Any) -> str:
    """Return a value in a form that fits a message, whatever its size."""
    try:
        text = repr(value)
    except ValueError:  # int too long for str(), see sys.set_int_max_str_digits()
        text = "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:60]}... ({len(text)} characters)"


def _from_text(text: str, kind: Any) -> Any:
    """Return the value that a text stands for, or the text itself if it stands for none."""
    text.encode()  # raises UnicodeEncodeError for bytes of the environment that are not UTF-8
    if kind is bool:
        return _BOOLEANS.get(text.lower(), text)
    if getattr(kind, "__origin__", None) is int and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    return text


def _known_machine(top: Path, name: str, origin: str) -> None:
    folder = top / "configs" / "machines"
    if _is_name(name) and os.path.lexists(folder / f"{name}.toml"):
        return
    known = sorted(path.stem for path in folder.glob("*.toml"))
    raise PiggyError(
        f"{origin}: there is no machine {_short(name)}.{nearest(name, known)}",
        "machines: " + ", ".join(known),
    )


def _is_name(name: Any) -> bool:
    """Tell whether a value can be the name of a machine's file."""
    return isinstance(name, str) and re.fullmatch(r"[^/\0\ud800-\udfff]{1,60}", name) is not None
