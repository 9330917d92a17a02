"""The pins: the upstream file of each source, by sha256, and the distribution's package of it.

configs/sources.toml is the only place for versions, download addresses and hashes of sources.
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


class OnRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The keys of a package that differ on one release of the distribution; None for the same."""

    name: Word | None = None
    member: str | None = None
    suite: Suites | None = None


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A distribution package (apt) that holds a source.

    Attributes:
        name: The package, without a version: old versions vanish from the archives.
        kind: "binary": `member` is the tarball in it; "source": its orig tarball.
        member: The path of the tarball in a binary package.
        identical: Whether the tarball is upstream's, bit by bit, and must have the source's sha256.
        suite: The suites of the distribution's archive that have it, separated by spaces; None for
            those in the system's package sources.
        releases: The keys that differ on a release, by the release's code name.
    """

    name: Word
    kind: Literal["binary", "source"]
    member: str = ""
    identical: bool = False
    suite: Suites | None = None
    releases: dict[str, OnRelease] = {}

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
        """Return the package as it is on a release.

        The suite is dropped where it is the release itself: the system's own package sources have
        it, and its updates.

        Args:
            release: The release's code name; "" if it is unknown.
        """
        there = msgspec.structs.asdict(self.releases.get(release, OnRelease()))
        known = {key: value for key, value in there.items() if value is not None}
        here = msgspec.structs.replace(self, releases={}, **known)
        own = release in (here.suite or "").split()
        return msgspec.structs.replace(here, suite=None) if own else here


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One upstream file, or one that only the distribution's package provides.

    Attributes:
        name: Its table's name.
        version: Its version.
        urls: Its addresses; the first that answers is taken.
        sha256: Its hash.
        package: The distribution's package with the same content. Without urls and sha256 it is the
            only origin, and apt's chain of signatures is the proof.
        outside_links: Symbolic links in it (paths below its top folder) that lead out of its tree,
            such as those of a target's skeleton. Others are refused.
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
            whole = url.isprintable() and " " not in url  # urlsplit() ignores newlines and tabs
            if (
                not whole
                or urlsplit(url).scheme not in ("http", "https")
                or not urlsplit(url).netloc
                or not _base(url)
            ):
                raise ValueError(f"{url!r} is not the http or https address of a file")

    @property
    def filename(self) -> str:
        """Upstream's name of the file, which is its name in dl/.

        Without an upstream it is only used in messages.
        """
        if self.urls:
            return _base(self.urls[0])
        assert self.package  # checked in __post_init__
        return PurePosixPath(self.package.member).name or self.package.name


def codename() -> str:
    """Return the code name of this system's release, "" if it has none (os-release(5))."""
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""


def load(path: Path, release: str | None = None) -> dict[str, Source]:
    """Read the sources of a TOML file.

    Args:
        path: The file.
        release: The code name of the release that packages are for; None for this system's.

    Returns:
        The sources by name.

    Raises:
        PiggyError: The file is unreadable, a key is unknown, missing, of the wrong type or
            malformed, or two sources would have the same name in dl/. The message names file, table
            and key.
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
    """Return the source of one table, its package as it is on `release`."""
    where = f'{path}: ["{name}"]'
    if not isinstance(table, dict):
        raise PiggyError(f"{where} must be a table of a source, not {type(table).__name__}")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+_-]*", name):
        raise PiggyError(f"{where}: a source's name is made of lower case letters, digits and .+_-")
    # A source is named by its table. The struct has the name for those who hold only the struct.
    if "name" in table:
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
    """Replace patterns in a message of msgspec by words."""
    for pattern, words in _IN_WORDS.items():
        message = message.replace(f"`str` matching regex {pattern!r}", words)
    return message


def _base(url: str) -> str:
    """Return the file name at the end of an address, "" if there is none that is safe to use."""
    base = PurePosixPath(unquote(urlsplit(url).path)).name
    return base if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+~_-]*", base) else ""
