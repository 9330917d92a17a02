"""The system's package sources, copied with source packages switched on and every weakening of signatures left out; and
the same for another suite of the distribution's archive.

Both formats of sources.list(5): one line a source (*.list), and deb822 paragraphs (*.sources).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tasks.kit import run
from tasks.kit.download import Unavailable
from tasks.kit.pins import codename

# sources.list(5): each would let packages through that nobody vouches for. `target` is set by us.
_DROPPED = ("trusted", "allow-insecure", "allow-weak", "allow-downgrade-to-insecure", "target", "targets")
_ROLLING = ("stable", "testing", "unstable", "sid", "oldstable")  # what sources may say instead of a release's code name
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


def of_suite(copies: Mapping[str, str], suite: str) -> dict[str, str]:
    """Return package sources for one other suite of the distribution's archive, by file name.

    copies: what private_copies() gave. suite: "bullseye", "bullseye-security", "sid", ...

    Server, keys and options are those of the system's own release; only the suite's name is another one. A suite called
    X-security is looked for where the system's own ...-security is, and so on; where it has no such suite, and for a suite
    without a hyphen, that is the archive of the release itself. Raises Unavailable where the system names none.
    """
    release = codename()
    names = [name for name in (release, *_ROLLING) if name]
    kind = suite.partition("-")[2]
    for own in [*(f"{name}-{kind}" for name in names if kind), *names]:
        made = {name: text for name, copy in copies.items() if (text := _moved(name, copy, own, suite))}
        if made:
            return made
    own = f"its own release {release}" if release else "its own release"
    raise Unavailable(f"this system's package sources name no archive of {own}, which '{suite}' would be another suite of")


def _moved(name: str, copy: str, own: str, suite: str) -> str:
    """Return what one of our copies says of the suite `own`, with `suite` in its place; "" when it says nothing of it.

    Only the component main counts: other vendors' archives may have suites of that name, too, but hardly ever a "main" in
    them; and older suites do not have all the components that newer ones have.
    """
    if name.endswith(".sources"):
        split = re.split(r"\n(?:[ \t]*\n)+", copy)
        return "\n".join(text for paragraph in split if (text := _moved_paragraph(paragraph, own, suite)))
    made = ""
    for line in copy.splitlines():
        found = re.fullmatch(r"(deb(?:-src)? \[[^]]*] \S+)\s+(\S+)((?:\s+\S+)*)", line)  # as lines() made it
        if found and found[2].rstrip("/") == own and "main" in found[3].split():
            made += f"{found[1]} {suite} main\n"
    return made


def _moved_paragraph(paragraph: str, own: str, suite: str) -> str:
    """The same for one paragraph of a deb822-style file."""
    fields = re.findall(r"^(\S[^:\n]*):((?:.*)(?:\n[ \t].*)*)\n?", paragraph, re.MULTILINE)
    values = {name.strip().lower(): value.split() for name, value in fields}
    if own not in values.get("suites", ()) or "main" not in values.get("components", ()) or \
            values.get("enabled", ["yes"])[0].lower() in ("no", "false", "without", "off", "disable", "0"):
        return ""
    new = {"suites": f" {suite}", "components": " main"}
    return "".join(f"{name}:{new.get(name.strip().lower(), value)}\n" for name, value in fields)
