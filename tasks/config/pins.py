"""The pins: the upstream file of every source, by sha256, and the distribution's package of it.

`configs/sources.toml` is the only place where a version, a download address or a hash of a source
stands.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from tasks.config import toml
from tasks.system.errors import PiggyError

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z")]
Word = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9.+~_-]*\\Z")]
Suites = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9.-]*( [a-z0-9][a-z0-9.-]*)*\\Z")]
_IN_WORDS = {
    "^[0-9a-f]{64}\\Z": "64 hexadecimal digits (0-9, a-f)",
    "^[A-Za-z0-9][A-Za-z0-9.+~_-]*\\Z": "letters, digits and .+~_- only",
    "^[a-z0-9][a-z0-9.-]*( [a-z0-9][a-z0-9.-]*)*\\Z": (
        "names of suites with a space between them: lower case letters, digits, dots and hyphens"
    ),
}


class Elsewhere(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What stands in the place of a package's keys on one release of the distribution.

    None: the same as elsewhere.
    """

    name: Word | None = None
    member: str | None = None
    suite: Suites | None = None


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A distribution package (apt) that holds a source.

    name:      the package, without a version: old ones vanish from the archives.
    kind:      "binary": `member` is the tarball in it; "source": its orig tarball.
    member:    path of the tarball inside a binary package.
    identical: the tarball is upstream's, bit by bit, and must have the source's sha256.
    suite:     the suites of the distribution's archive that have it, with a space between them
               (None: those that the system's package sources name).
    releases:  what is otherwise on a release, by the release's code name.
    """

    name: Word
    kind: Literal["binary", "source"]
    member: str = ""
    identical: bool = False
    suite: Suites | None = None
    releases: dict[str, Elsewhere] = {}

    def __post_init__(self) -> None:
        if (self.kind == "binary") != bool(self.member):
            raise ValueError('`member` goes with kind = "binary", and only with it')
        if any(
            there.member is not None and not (self.member and there.member)
            for there in self.releases.values()
        ):
            raise ValueError(
                "`member` of `releases` takes the place of the package's own, and may not be empty"
            )

    def on(self, release: str) -> Package:
        """Return the package as the release of that code name has it ("": unknown).

        With what `releases` says of it, and without a suite where that is the release itself, whose
        own package sources know it and its updates.
        """
        there = msgspec.structs.asdict(self.releases.get(release, Elsewhere()))
        known = {key: value for key, value in there.items() if value is not None}
        here = msgspec.structs.replace(self, releases={}, **known)
        own = release in (here.suite or "").split()
        return msgspec.structs.replace(here, suite=None) if own else here


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One upstream file, or one that the distribution's package alone gives.

    version, sha256: of that file.
    urls:          its addresses; the first that answers wins.
    package:       the distribution's package that holds the same thing. Where neither urls nor
                   sha256 are known, it is the only origin, and apt's chain of signatures the proof.
    outside_links: symbolic links in it (paths below its top folder) that lead out of its tree, such
                   as those of a target's skeleton. Without being named here they are refused.
    """

    name: str
    version: Word
    urls: tuple[str, ...] = ()
    sha256: Sha256 | None = None
    package: Package | None = None
    outside_links: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.urls) != bool(self.sha256):
            raise ValueError(
                "`urls` and `sha256` go together: what comes from an address is known by its hash"
                " alone"
            )
        if not self.urls and (not self.package or self.package.identical):
            raise ValueError(
                "`urls` and `sha256` may be missing only where a `package`, not `identical`, stands"
                " for them"
            )
        for url in self.urls:
            whole = url.isprintable() and " " not in url  # urlsplit() passes over newlines and tabs
            if (
                not whole
                or urlsplit(url).scheme not in ("http", "https")
                or not urlsplit(url).netloc
                or not _base(url)
            ):
                raise ValueError(f"{url!r} is not the http or https address of a file")

    @property
    def filename(self) -> str:
        """Upstream's name of the file, under which it lies in dl/.

        For messages only where there is no upstream.
        """
        if self.urls:
            return _base(self.urls[0])
        assert self.package  # __post_init__ saw to it
        return PurePosixPath(self.package.member).name or self.package.name


def codename() -> str:
    """Return the code name of this system's release, "" if it tells none. Source: os-release(5)."""
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""


def load(path: Path, release: str | None = None) -> dict[str, Source]:
    """Return the sources of a TOML file, by name, with packages as they are on one release.

    release: the release's code name (None: this system's).

    Raises PiggyError, naming file, table and key, for a file that can't be read, an unknown or
    missing key, a wrong type, a malformed hash, and two sources that would lie under one name in
    dl/.
    """
    release = codename() if release is None else release
    sources = {name: _source(path, name, table, release) for name, table in toml.read(path).items()}
    owners: dict[str, str] = {}
    for source in sources.values():
        other = owners.setdefault(source.filename, source.name)
        if other != source.name:
            raise PiggyError(
                f'{path}: ["{other}"] and ["{source.name}"] are both named {source.filename}',
                "two sources can't share a file name in dl/",
            )
    return sources


def _source(path: Path, name: str, table: object, release: str) -> Source:
    """Return the source of one table of `path`, its package as it is on `release`."""
    where = f'{path}: ["{name}"]'
    if not isinstance(table, dict):
        raise PiggyError(f"{where} must be a table of a source, not {type(table).__name__}")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+_-]*", name):
        raise PiggyError(f"{where}: a source's name is made of lower case letters, digits and .+_-")
    if (
        "name" in table
    ):  # the table's own name is the source's; Source holds it for whoever has but the one
        raise PiggyError(f"{where}: unknown key 'name'", "the table's heading is the name")
    try:
        source = toml.convert({**table, "name": name}, Source, where)
    except PiggyError as error:
        raise PiggyError(_plain(error.message), error.hint) from error
    return (
        msgspec.structs.replace(source, package=source.package.on(release))
        if source.package
        else source
    )


def _plain(message: str) -> str:
    """Say in words what a pattern asks for."""
    for pattern, words in _IN_WORDS.items():
        message = message.replace(f"`str` matching regex {pattern!r}", words)
    return message


def _base(url: str) -> str:
    """Return the file name that an address ends with, "" when there is none that is safe to use."""
    base = PurePosixPath(unquote(urlsplit(url).path)).name
    return base if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+~_-]*", base) else ""
