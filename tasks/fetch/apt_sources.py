"""Safe copies of the system's package sources: source packages enabled, weak options removed.

The copies can be redirected to another suite of the distribution's archive, too.

Both formats of sources.list(5) are read: one line a source (*.list), and deb822 paragraphs
(*.sources). Options are copied by an allow-list, and in one spelling only; apt knows others
(quotes, %-escapes, +=), and new options with each release. An option that is not listed is left out
with a message. A whole source is left out where apt would trust more without the option: its keys
are spelled in another way, or it can't be read with certainty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from tasks.config.pins import codename
from tasks.fetch.download import Unavailable
from tasks.system import address, process, terminal
from tasks.system.pattern import pattern

_ADDRESS = (
    r"(?!(?i:cdrom):)[A-Za-z][A-Za-z0-9+.-]*:(?://\[[0-9A-Fa-f:.]+\])?[A-Za-z0-9._~/@:+,=&%$()-]*"
)
_SUITE = r"[A-Za-z0-9._~/+:=$()-]+"
_COMPONENT = r"[A-Za-z0-9._~/+-]+"
_KEYS = r"/[A-Za-z0-9._~/+@:-]+|[0-9A-Fa-f]{8,40}!?"  # files, or fingerprints
_KEY_BLOCK = r"\s*-----BEGIN PGP PUBLIC KEY BLOCK-----\n[ -~\t\n]*"
# The allow-list: fields of deb822, and below the options of a line, each with the pattern of one
# word of its value.
_FIELDS = {
    "types": "deb|deb-src",
    "uris": _ADDRESS,
    "suites": _SUITE,
    "components": _COMPONENT,
    "enabled": "[A-Za-z0-9]+",
    "signed-by": _KEYS,
    "architectures": "[a-z0-9-]+",
    "architectures-add": "[a-z0-9-]+",
    "architectures-remove": "[a-z0-9-]+",
    "by-hash": "yes|no|force",
}
_LINE = pattern(
    rf"(deb|deb-src)[ \t]+(?:\[([^]]*)\][ \t]*)?({_ADDRESS}[ \t]+{_SUITE}(?:[ \t]+{_COMPONENT})*)"
)
_OPTIONS = {
    "signed-by=": _KEYS,
    "arch=": "[a-z0-9-]+",
    "arch+=": "[a-z0-9-]+",
    "arch-=": "[a-z0-9-]+",
    "by-hash=": "yes|no|force",
}
# Names that sources may have in place of a release's code name.
_ROLLING = ("stable", "testing", "unstable", "sid", "oldstable")
# No translations, file lists, icons: tens of megabytes that nothing here reads.
_TARGETS = ("Packages", "Sources")


def private_copies(log: Path | None = None) -> dict[str, str]:
    """Return copies of all package sources of this system, by file name.

    apt-config names the files. A file that this user can't read (it holds a password) is left out.

    Args:
        log: A file for apt-config's output.
    """
    output = process.run(
        [
            "apt-config",
            "shell",
            "MAIN",
            "Dir::Etc::sourcelist/f",
            "PARTS",
            "Dir::Etc::sourceparts/d",
        ],
        log=log,
        check=False,
    ).output
    paths = dict(re.findall(r"^(MAIN|PARTS)='(.*)'$", output, re.MULTILINE))
    main = Path(paths.get("MAIN", "/etc/apt/sources.list"))
    parts = Path(paths.get("PARTS", "/etc/apt/sources.list.d"))
    copies = {}
    for path in [main, *(sorted(parts.iterdir()) if parts.is_dir() else [])]:
        # apt reads no other names: letters, digits and _-. with one of the two endings.
        if path != main and not re.fullmatch(r"[\w.-]+\.(list|sources)", path.name, re.ASCII):
            continue
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        left: list[str] = []
        copy = (
            paragraphs(text, left.append) if path.suffix == ".sources" else lines(text, left.append)
        )
        if left:
            terminal.line(
                "apt", address.shown(f"{path}: not in our copy: {', '.join(dict.fromkeys(left))}")
            )
        if copy:
            copies[path.name if path != main else f"00-main{path.suffix or '.list'}"] = copy
    return copies


def lines(text: str, tell: Callable[[str], object] = lambda what: None) -> str:
    """Copy a one-line-style file; add the source packages of each binary source.

    Args:
        text: The file's content.
        tell: Called with each option or line that is left out.

    Returns:
        The copy; "" if no source is left.
    """
    made: dict[str, None] = {}  # a set that keeps the order
    # As apt splits; Python's splitlines() would cut a comment in two at a form feed.
    for line in text.split("\n"):
        source = line.partition("#")[0].strip()
        if not re.match(r"deb(-src)?[ \t]", source) or re.match(
            r"\S+[ \t]+(\[[^]]*\][ \t]*)?cdrom:", source
        ):
            continue
        match = _LINE.fullmatch(source)
        allowed = _options(match[2] or "", tell) if match else None
        if not match or allowed is None:
            tell(f"the line '{source[:200]}'")
            continue
        options = " ".join([*allowed, f"target={','.join(_TARGETS)}"])
        for kind in ("deb", "deb-src") if match[1] == "deb" else ("deb-src",):
            made[f"{kind} [{options}] {match[3]}\n"] = None
    return "".join(made)


def _options(text: str, tell: Callable[[str], object]) -> list[str] | None:
    """Return the allowed options of a line; None if the whole line must be left out."""
    # An option may have spaces around its signs, as in "[ arch = amd64 ]".
    allowed_words: dict[str, str] = {}
    for word in re.sub(r"[ \t]*([-+]?=)[ \t]*", r"\1", text).split():
        name, sign, value = re.fullmatch(r"(.*?)([-+]?=|$)(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
        allowed = _OPTIONS.get(name + sign)
        if (
            allowed
            and name + sign not in allowed_words
            and all(re.fullmatch(allowed, part) for part in value.split(","))
        ):
            allowed_words[name + sign] = word
        elif _restricts(name):
            return None
        else:
            tell(word)
    return list(allowed_words.values())


def _restricts(name: str) -> bool:
    """Tell whether an option or field restricts what apt accepts, in any spelling.

    Such a one names keys or architectures, or disables the source; without it, apt would accept
    more.
    """
    plain = unquote(name).replace('"', "").replace("'", "").replace("\\", "").strip().lower()
    return plain.removesuffix("-add").removesuffix("-remove") in (
        "signed-by",
        "arch",
        "architectures",
        "enabled",
    )


def paragraphs(text: str, tell: Callable[[str], object] = lambda what: None) -> str:
    """Copy a deb822-style file with source packages enabled beside the binary ones.

    python-debian is too lenient for this: it splits lines where apt does not (form feed, U+0085),
    skips a line that is no field, and silently uses the last of two fields of one name. In each
    case, apt could see what we don't.

    Args:
        text: The file's content.
        tell: Called with each field or paragraph that is left out.

    Returns:
        The copy; "" if no paragraph is left.
    """
    fields: list[str] = []  # each with its continuation lines; "" between paragraphs
    for line in text.split("\n"):
        if line.startswith((" ", "\t")) and fields and fields[-1]:
            fields[-1] += "\n" + line.rstrip() if line.strip() else ""
        elif not line.startswith("#"):
            fields.append(line.rstrip())
    made = []
    for paragraph in "\0".join(fields).split("\0\0"):
        content = [field for field in paragraph.split("\0") if field]
        if content:
            made.append(_paragraph(content, tell))
    return "\n\n".join(filter(None, made)) + "\n" if any(made) else ""


def _paragraph(fields: Sequence[str], tell: Callable[[str], object]) -> str:
    """Return the allowed fields of one paragraph; "" if the whole paragraph must be left out."""
    copied: dict[str, str] = {}
    for field in fields:
        name, colon, value = field.partition(":")
        key = name.lower()
        # Python treats more characters as space between words than apt does.
        good = bool(colon) and bool(
            re.fullmatch(r"[A-Za-z0-9-]+", name) and re.fullmatch(r"[ -~\t\n]*", value)
        )
        allowed = _FIELDS.get(key)
        words = value.replace(",", " ").split() if key == "signed-by" else value.split()
        if (
            good
            and allowed
            and key not in copied
            and words
            and (
                all(re.fullmatch(allowed, word) for word in words)
                or (key == "signed-by" and re.fullmatch(_KEY_BLOCK, value))
            )
        ):
            copied[key] = field
        elif allowed or not good or _restricts(name):
            tell(f"the paragraph with '{_first(field)}'")
            return ""
        elif key != "targets":  # we set them
            tell(f"'{_first(field)}'")
    if not {"types", "uris", "suites"} <= set(copied):
        if "types" in copied or "uris" in copied:
            tell(f"the paragraph with '{_first(fields[0])}'")
        return ""
    kinds = copied["types"].partition(":")[2].split()
    copied["types"] = (
        f"Types: {'deb deb-src' if 'deb' in kinds else ' '.join(kinds)}\nTargets:"
        f" {' '.join(_TARGETS)}"
    )
    return "\n".join(copied.values())


def _first(field: str) -> str:
    return field.partition("\n")[0][:80]


def of_suite(copies: Mapping[str, str], suite: str) -> dict[str, str]:
    """Derive package sources for another suite of the distribution's archive.

    Server, keys and options are those of the system's own release; only the suite's name differs.
    A suite X-security is expected where the system's own ...-security is, and so on. If the system
    has no such suite, or `suite` has no hyphen, it is expected in the archive of the release.

    Args:
        copies: The result of `private_copies`.
        suite: Its name: "bullseye", "bullseye-security", "sid", ...

    Returns:
        Package sources, by file name.

    Raises:
        Unavailable: The system's package sources do not name the distribution's archive.
    """
    release = codename()
    names = [name for name in (release, *_ROLLING) if name]
    kind = suite.partition("-")[2]
    for own in [*(f"{name}-{kind}" for name in names if kind), *names]:
        made = {
            name: text for name, copy in copies.items() if (text := _moved(name, copy, own, suite))
        }
        if made:
            return made
    own = f"its own release {release}" if release else "its own release"
    raise Unavailable(
        f"this system's package sources name no archive of {own}, which '{suite}' would be another"
        " suite of"
    )


def _moved(name: str, copy: str, own: str, suite: str) -> str:
    """Return the sources of suite `own` in one copy, with `suite` in its place; "" for none.

    Only the component main counts. Archives of other vendors may have suites of that name, but
    hardly ever a "main" in them; and older suites lack some components of newer ones.
    """
    if name.endswith(".sources"):
        split = re.split(r"\n(?:[ \t]*\n)+", copy)
        return "\n".join(
            text for paragraph in split if (text := _moved_paragraph(paragraph, own, suite))
        )
    made = ""
    for line in copy.splitlines():
        # As lines() writes it.
        source = re.fullmatch(r"(deb(?:-src)? \[[^]]*] \S+)\s+(\S+)((?:\s+\S+)*)", line)
        if source and source[2].rstrip("/") == own and "main" in source[3].split():
            made += f"{source[1]} {suite} main\n"
    return made


def _moved_paragraph(paragraph: str, own: str, suite: str) -> str:
    """Do as `_moved` for one paragraph of a deb822-style file."""
    from debian.deb822 import Deb822

    fields = Deb822(paragraph)
    enabled = fields.get("Enabled", "yes").split()
    if (
        own not in fields.get("Suites", "").split()
        or "main" not in fields.get("Components", "").split()
        or enabled[0].lower() in ("no", "false", "without", "off", "disable", "0")
    ):
        return ""
    fields["Suites"], fields["Components"] = suite, "main"
    return str(fields)
