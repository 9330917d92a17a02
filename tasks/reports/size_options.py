"""The options of `size`, and the limits that images are held against."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from tasks.cache.store import bytes_of
from tasks.config.machine import LIMIT, SIZES
from tasks.config.project import Project
from tasks.graph.verdict import Exceeded
from tasks.reports import options as options_of
from tasks.reports.size_against import NAMES
from tasks.system.errors import PiggyError, nearest


class Asked(msgspec.Struct, frozen=True):
    """The options.

    Attributes:
        against: What to compare with; "" for nothing.
        limit: Limits; "" for none but the machine's.
        symbols: Whether to group by Kconfig symbol.
        history: Whether to show the sizes of earlier builds.
        depth: How many levels of a tree are shown.
        whole: Whether no line is left out.
        as_json: Whether to print JSON.
    """

    against: str = ""
    limit: str = ""
    symbols: bool = False
    history: bool = False
    depth: int = 1
    whole: bool = False
    as_json: bool = False


_HELP = {
    "against": "compare with another build: a machine, a folder, store:1, a commit",
    "limit": "fail if the image is larger than 900K; or Image=3M,rootfs=2M",
    "symbols": "the kernel by Kconfig symbol",
    "history": "the sizes of this build and of earlier ones, and what changed",
    "depth": "how many levels are shown",
    "whole": "every line, however many they are",
    "as_json": "everything as JSON",
}
_WHOLE = ("against", "history", "symbols")  # what shows the build as a whole, in another form
PARAMS = options_of.described(Asked, _HELP, {"whole": {"long": "all"}, "as_json": {"long": "json"}})


def asked(names: Sequence[str], options: Mapping[str, Any]) -> tuple[list[str], Asked]:
    """Return the paths, and the options, of which some may stand after a path.

    doit's own parser takes the words from the first path on as they are.

    Raises:
        PiggyError: An option is none, or does not go with another one or with a path.
    """
    rest, more = options_of.split("size", names, PARAMS)
    found = Asked(**{**options, **more})
    shown = [f"--{name}" for name in _WHOLE if getattr(found, name)]
    if len(shown) > 1 and not found.as_json:
        raise PiggyError(f"{shown[0]} does not go with {shown[1]}", "ask one after the other")
    shown += ["--json"] * found.as_json
    if found.depth != Asked().depth and shown and (rest or not found.as_json):
        raise PiggyError(
            f"--depth does not go with {shown[0]}, which has no levels", "leave out one of the two"
        )
    if shown == ["--against"]:
        rest = [name.strip("/") for name in rest]
        if others := [name for name in rest if name not in NAMES]:
            raise PiggyError(
                f"--against is about all of the kernel, or of {', '.join(NAMES)}, and not about"
                f" '{others[0]}'.{nearest(others[0], NAMES)}",
                f"'doit size {others[0]}' looks at it more closely, without a comparison",
            )
    elif rest and shown:
        raise PiggyError(
            f"{shown[-1]} takes no path, as it is about all of the build: '{rest[0]}'",
            f"leave out one of the two; 'doit size {rest[0]}' looks at it more closely",
        )
    _given(found.limit)
    return rest, found


def refuse(names: Sequence[str] = (), **options: Any) -> None:
    """Refuse options that are none, before anything is built.

    Raises:
        PiggyError: As `asked` has it.
    """
    asked(names, options)


class Limits(msgspec.Struct, frozen=True):
    """The most bytes of images, by name.

    Attributes:
        machine: Those of the machine file.
        given: Those of --limit.
        image: The image that is booted.
        known: The images that the machine has, built or not.
    """

    machine: dict[str, int]
    given: dict[str, int]
    image: str = ""
    known: Collection[str] = ()


def limits(project: Project, given: str) -> Limits:
    """Return the limits of the machine, and those of --limit.

    Raises:
        PiggyError: One is no size.
    """
    machine = project.machine.limits  # they were checked as the machine file was read
    return Limits(
        {name: bytes_of(str(value)) for name, value in machine.items()},
        {name or project.image: most for name, most in _given(given).items()},
        project.image,
        ("vmlinux", "busybox", *project.chain, *project.goals),
    )


def _given(text: str) -> dict[str, int]:
    """Return the limits of --limit by image; "" stands for the booted one.

    Raises:
        PiggyError: One is no size, or names no image.
    """
    found: dict[str, int] = {}
    for word in map(str.strip, text.split(",")) if text else ():
        name, equals, size = word.rpartition("=")
        if equals and not name:
            raise PiggyError(f"--limit: '{word}' names no image", "900K, or Image=3M,rootfs=2M")
        most = _bytes(size)
        if name in found:
            whose = f"'{name}'" if name else "the booted image"
            raise PiggyError(f"--limit: {whose} has two limits", "900K, or Image=3M,rootfs=2M")
        found[name] = most
    return found


def _bytes(text: str) -> int:
    plain = re.sub(r"(?<=[0-9])_(?=[0-9])", "", text)  # as the machine file has them
    if not LIMIT.fullmatch(plain):
        raise PiggyError(f"--limit: '{text}' is no size", SIZES)
    return bytes_of(plain)


def check(files: Mapping[str, int], most: Limits) -> None:
    """Check images against limits.

    One of the machine's that is not built has no size yet, unless it is the one that is booted.

    Args:
        files: The sizes of what is built.
        most: The limits; those of --limit win.

    Raises:
        Exceeded: One is larger.
        PiggyError: --limit names one that is not built; the booted one has a limit, and is not
            built; or one that has a limit is empty.
    """
    for name in most.given:
        if name not in files and name in most.known:
            raise PiggyError(f"{name} has a limit, and is not built", f"doit {name}")
        if name not in files:
            raise PiggyError(
                f"there is no image '{name}' to limit.{nearest(name, files)}",
                f"built are {', '.join(files)}",
            )
    both = {**most.machine, **most.given}
    if most.image in both and most.image not in files:
        raise PiggyError(f"{most.image} has a limit, and is not built", f"doit {most.image}")
    for name in both:
        if files.get(name) == 0:
            raise PiggyError(f"{name} has a limit, and is empty", f"doit {name}")
    large = [
        f"{name} has {files[name]:,} B, {files[name] - limit:,} B more than its limit of"
        f" {limit:,} B"
        for name, limit in both.items()
        if files.get(name, 0) > limit
    ]
    if large:
        raise Exceeded("; ".join(large), "'doit size --against REF' says what grew")
