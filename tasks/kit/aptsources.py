"""The system's package sources, copied with source packages switched on and every weakening of signatures left out.

Both formats of sources.list(5): one line a source (*.list), and deb822 paragraphs (*.sources).
"""

from __future__ import annotations

import re
from pathlib import Path

from tasks.kit import run

# sources.list(5): each would let packages through that nobody vouches for. `target` is set by us.
_DROPPED = ("trusted", "allow-insecure", "allow-weak", "allow-downgrade-to-insecure", "target", "targets")
_TARGETS = ("Packages", "Sources")  # no translations, file lists, icons: tens of megabytes that nothing here reads


def private_copies(log: Path | None = None) -> dict[str, str]:
    """Return our copies of all package sources of this system, by file name.

    Which files these are is asked of apt. One that this user may not read (it holds a password) is left out.
    """
    asked = run.run(["apt-config", "shell", "MAIN", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"],
                    log=log, check=False).output
    places = dict(re.findall(r"^(MAIN|PARTS)='(.*)'$", asked, re.MULTILINE))
    main = Path(places.get("MAIN", "/etc/apt/sources.list"))
    parts = Path(places.get("PARTS", "/etc/apt/sources.list.d"))
    copies = {}
    for path in [main, *(sorted(parts.iterdir()) if parts.is_dir() else [])]:
        # apt takes no other names than these: letters, digits and _-. with one of the two endings
        if path != main and not re.fullmatch(r"[\w.-]+\.(list|sources)", path.name, re.ASCII):
            continue
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        copy = paragraphs(text) if path.suffix == ".sources" else lines(text)
        if copy:
            copies[path.name if path != main else f"00-main{path.suffix or '.list'}"] = copy
    return copies


def lines(text: str) -> str:
    """Return a one-line-style file with each binary source followed by its source packages; "" when nothing is left."""
    made: dict[str, None] = {}  # a set that keeps the order
    for line in text.splitlines():
        found = re.match(r"\s*(deb|deb-src)\s+(?:\[([^]]*)]\s*)?((?!cdrom:)[^#\s][^#]*)", line)
        if found:
            # an option may have spaces around its signs, as in "[ arch = amd64 ]"
            words = re.sub(r"\s*([-+]?=)\s*", r"\1", found[2] or "").split()
            kept = [word for word in words if re.split(r"[-+]?=", word)[0].lower() not in _DROPPED]
            options = " ".join([*kept, f"target={','.join(_TARGETS)}"])
            for kind in ("deb", "deb-src") if found[1] == "deb" else ("deb-src",):
                made[f"{kind} [{options}] {found[3].strip()}\n"] = None
    return "".join(made)


def paragraphs(text: str) -> str:
    """Return a deb822-style file with source packages switched on in each paragraph that has binary ones."""
    fields: list[str] = []  # each with the lines that go on with it; "" between paragraphs
    for line in text.splitlines():
        if line.startswith((" ", "\t")) and fields:
            fields[-1] += "\n" + line
        elif not line.startswith("#"):
            fields.append(line.rstrip())
    kept: list[str] = []
    for field in fields:
        name, _, value = field.partition(":")
        if name.strip().lower() == "types":
            kinds = value.split()
            kept += [f"Types: {'deb deb-src' if 'deb' in kinds else ' '.join(kinds)}", f"Targets: {' '.join(_TARGETS)}"]
        elif name.strip().lower() not in _DROPPED:
            kept.append(field)
    return "\n".join(kept).strip() + "\n" if any(kept) else ""
