"""What brought each initcall and driver in: object, Kconfig symbol, and who asks for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from tasks import kernel_config
from tasks.cache.digests import content_digest
from tasks.config.project import Project
from tasks.kbuild import configure
from tasks.kbuild.brought_in import BroughtIn
from tasks.kconfig import dotconfig
from tasks.kconfig import symbols as model
from tasks.kconfig.fragments import Request
from tasks.kconfig.reasons import origin
from tasks.system.files import read_regular, write_whole
from tasks.tuning import boot_scripts, pieces
from tasks.tuning.boot import Bar
from tasks.tuning.sizes import Record


class _Known(msgspec.Struct):
    """Why symbols are on, in words, of one configuration: Kconfig is read once for it."""

    config: str
    words: dict[str, str]


def explained(project: Project, found: Sequence[Bar], record: Record) -> Iterator[Bar]:
    """Yield the bars: initcalls and probes with their reason, programs with a script's line.

    Args:
        project: The project.
        found: The bars.
        record: What was measured of what was booted. Of another build than the selected machine's,
            the reasons are those that this one's fragments give.
    """
    objects = pieces.objects_of(record.pieces)
    on = {name: value for name, value in record.config.items() if value in ("y", "m")}
    arch = next(
        (one.object.split("/")[1] for one in record.pieces if one.object.startswith("arch/")),
        project.machine.arch,
    )
    brought = BroughtIn(project.layout.kernel_src, on, arch)
    names = {bar.name if bar.kind == "initcall" else bar.holder for bar in found} - {""}
    where = {name: objects.get(name, "") for name in names}
    symbols = {
        name: next(iter(brought.chain(path)), "") if path else "" for name, path in where.items()
    }
    words = _words(project, sorted(set(filter(None, symbols.values()))))

    def text(path: str) -> tuple[str, str]:
        """Return the name and text of a script of an overlay; the last overlay's wins."""
        for folder in reversed(project.overlays):
            place = folder / path.lstrip("/")
            if place.is_file():
                name = str(place).removeprefix(f"{project.top}/")
                return name, place.read_text(errors="replace")
        return "", ""

    for bar in boot_scripts.explained(found, text):
        name = bar.name if bar.kind == "initcall" else bar.holder
        symbol = symbols.get(name, "")
        yield msgspec.structs.replace(
            bar,
            object=where.get(name, ""),
            symbol=symbol,
            reason=words.get(symbol, "") or bar.reason,
        )


def _words(project: Project, symbols: Sequence[str]) -> dict[str, str]:
    """Return who asks for each symbol: a fragment's line, or why it is on without one."""
    asked = kernel_config.tree(project).asked().requests
    found = {name: asked[name].where for name in symbols if name in asked}
    rest = [name for name in symbols if name not in asked]
    place = project.layout.here / "boot_profile" / "origins"
    return found | _origins(project, rest, asked, place)


def _origins(
    project: Project, symbols: Sequence[str], asked: Mapping[str, Request], place: Path
) -> dict[str, str]:
    """Return why symbols are on that no line asks for, from Kconfig or from the last time."""
    lines = [f"{name} {request.where}" for name, request in sorted(asked.items())]
    digest = sha256("\n".join(lines).encode())
    state = f"{content_digest(project.layout.config)} {digest.hexdigest()}"
    try:
        known = msgspec.json.decode(read_regular(place, 1 << 24), type=_Known)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        known = _Known("", {})
    if known.config != state:
        known = _Known(state, {})
    if set(symbols) - set(known.words):
        kconf = configure.model(kernel_config.tree(project))
        if kconf is None:
            return {}
        model.assume(kconf, dotconfig.read_config(project.layout.config))
        for name in symbols:
            text, by = origin(kconf, name)
            line = next((asked[one].where for one in by if one in asked), "")
            known.words[name] = f"{text} ({line})" if line else text
        write_whole(place, msgspec.json.encode(known))
    return {name: known.words[name] for name in symbols}
