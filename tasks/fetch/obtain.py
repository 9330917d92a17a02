"""Download of a source into dl/, with its hash verified.

The origins are tried in this order:

    dl/FILE or what dl/NAME.json records -> MIRROR/FILE, MIRROR/NAME/FILE -> upstream's URLs -> apt

dl/NAME.json records the result (see `records`), so that a verified file is neither fetched nor
hashed again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from tasks.config.pins import Package, Source
from tasks.fetch import apt, download, records
from tasks.fetch.download import Unavailable
from tasks.fetch.records import Obtained
from tasks.system import address, files, terminal
from tasks.system.errors import PiggyError
from tasks.system.lock import Lock


def obtain(
    source: Source,
    *,
    dl: Path,
    apt_state: Path,
    mirror: str = "",
    offline: bool = False,
    log: Path | None = None,
    progress: bool | None = None,
) -> Obtained:
    """Return the verified archive of a source; fetch it into `dl` if it is missing there.

    Upstream's file must have the pin's sha256. A package must pass apt's signature chain; if the
    pin calls its tarball identical, that must have the pin's sha256, too. A bad file is renamed to
    FILE.bad.

    Args:
        source: The source, with its pin.
        dl: The folder of archives.
        apt_state: The folder of apt's lists and caches.
        mirror: An address or folder to try before upstream; "" for none.
        offline: Whether to use files in `dl` only.
        log: A file for apt's output.
        progress: Whether to show progress bars; None: if standard error is a terminal.

    Raises:
        PiggyError: No origin has the file (with the reason of each), or `dl` can't be written.
    """
    with files.explained(dl):
        archive = records.trusted(source, dl)
        if archive:
            return archive
        if dl.is_dir() and not os.access(dl, os.W_OK):
            return _from_read_only(source, dl)
        if offline and not dl.is_dir():
            raise _missing(source, dl)
        dl.mkdir(parents=True, exist_ok=True)
        with Lock(dl / f".{source.name}.lock", os.fspath(dl / source.filename)).held():
            archive = records.trusted(source, dl) or records.checked(source, dl)
            if archive:
                return archive
            if offline:
                raise _missing(source, dl)
            bar = sys.stderr.isatty() if progress is None else progress
            return _first_that_has_it(source, dl, _origins(source, dl, mirror, apt_state, log, bar))


def _first_that_has_it(
    source: Source, dl: Path, origins: Iterable[tuple[str, Callable[[], Obtained]]]
) -> Obtained:
    """Return the archive from the first origin that has it.

    Raises:
        PiggyError: None has it; the hint gives the reason of each.
    """
    mirror = ", or set 'mirror=' to an address or folder that has the file" if source.sha256 else ""
    reasons = []
    for origin, get in origins:
        terminal.line("fetch", address.shown(f"{source.filename} from {origin}"))
        try:
            return get()
        except Unavailable as why:
            terminal.line("", address.shown(f"no: {why}"))
            reasons.append(address.shown(f"{origin}: {why}"))
    raise PiggyError(
        f"could not get {source.filename}",
        "\n    ".join(
            [
                "each origin failed:",
                *(f"- {reason}" for reason in reasons),
                f"check the network{mirror};",
                _by_hand(source, dl),
            ]
        ),
    )


def _origins(
    source: Source, dl: Path, mirror: str, apt_state: Path, log: Path | None, bar: bool
) -> Iterator[tuple[str, Callable[[], Obtained]]]:
    """Yield the origins in order: the name of each, and the function that fetches the file."""
    urls = (
        [
            f"{mirror.rstrip('/')}/{path}"
            for path in (source.filename, f"{source.name}/{source.filename}")
        ]
        if mirror and source.sha256
        else []
    )
    for url in [*urls, *source.urls]:
        yield url, lambda url=url: _from_url(source, dl, url, bar)  # type: ignore[misc]
    package = source.package
    if package:
        suite = f" of {package.suite}" if package.suite else ""
        yield (
            f"package {package.name}{suite} (apt)",
            lambda: _from_package(source, package, dl, apt_state, log, bar),
        )


def _from_url(source: Source, dl: Path, url: str, bar: bool) -> Obtained:
    """Fetch upstream's file from an http, https or file address or a path; verify and record it."""
    assert source.sha256  # a pin without a hash has no address (see pins)
    path = dl / source.filename
    part = path.with_name(path.name + ".part")
    scheme = url.partition(":")[0].lower() if "://" in url else ""
    if scheme in ("http", "https"):
        download.download(quote(url, safe=":/?&=%~+@#[]!$'()*,;"), part, source.sha256, bar=bar)
    elif scheme in ("", "file"):
        _copy(Path(unquote(url.removeprefix("file://")) if scheme else url).expanduser(), part)
        digest = files.sha256_of(part)
        if digest != source.sha256:
            download.discard(part)
            raise Unavailable(
                f"wrong content: its sha256 is {digest}, and should be {source.sha256}"
            )
    else:
        raise Unavailable(
            f"'{scheme}' is not supported: a mirror is an http or https address, or a folder"
        )
    os.replace(part, path)
    return records.write(source, dl, source.filename, source.sha256, url)


def _from_package(
    source: Source, package: Package, dl: Path, state: Path, log: Path | None, bar: bool
) -> Obtained:
    """Extract the tarball from the distribution's package; record it with the package's version."""
    with contextlib.ExitStack() as stack:
        try:
            got = stack.enter_context(apt.fetched(package, state, log=log, bar=bar))
        except (
            PiggyError
        ) as error:  # in apt's folder; the user needs the other origins' reasons, too
            raise Unavailable(error.message) from error
        if package.identical:
            name = source.filename
        elif package.kind == "source":
            name = got.path.name
        else:
            version = got.version.partition(":")[2] or got.version  # without its epoch
            name = f"{package.name}_{version}{_endings(package.member)}"
        if not records.plain(name):
            raise Unavailable(f"'{name}' can't be the name of a file in {dl}")
        part = dl / f"{name}.part"
        if package.kind == "binary":
            apt.tarball_in(got.path, package.member, part)
        else:
            _copy(got.path, part)
        digest = files.sha256_of(part)
        if package.identical and digest != source.sha256:
            download.discard(part)
            raise Unavailable(
                f"version {got.version} holds another file: {got.path.name} has sha256 {digest}, "
                f"and should have {source.sha256}"
            )
        os.replace(part, dl / name)
    origin = f"package {package.name} {got.version} (apt)"
    return records.write(source, dl, name, digest, origin, package.name, got.version)


def _endings(path: str) -> str:
    """Return a tarball's suffixes, such as ".tar.xz"."""
    return path[path.rindex(".tar") :] if ".tar" in path else Path(path).suffix


def _copy(source: Path, part: Path) -> None:
    """Copy a file to `part` and sync it to the disk.

    Raises:
        Unavailable: The file does not exist or can't be read.
        PiggyError: `part` can't be written.
    """
    try:
        if not source.is_file():
            raise Unavailable("no such file")
        reader = source.open("rb")
    except OSError as error:
        raise Unavailable(error.strerror or str(error)) from error
    download.discard(part)
    with (
        reader,
        download.written(part, os.fstat(reader.fileno()).st_size),
        part.open("xb") as writer,
    ):
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def _from_read_only(source: Source, dl: Path) -> Obtained:
    """Return the archive in a read-only folder; it is hashed at each call, as nothing is recorded.

    Raises:
        PiggyError: The folder has no good file.
    """
    archive = records.checked(source, dl, writable=False)
    if archive:
        return archive
    raise PiggyError(
        f"{dl} has no good {source.filename}, and can't be written to",
        f"make it writable, or choose another with 'dl='; {_by_hand(source, dl)}",
    )


def _missing(source: Source, dl: Path) -> PiggyError:
    return PiggyError(
        f"{dl / source.filename} is missing, and may not be fetched now",
        f"'doit offline=no fetch' gets it where there is a network; {_by_hand(source, dl)}",
    )


def _by_hand(source: Source, dl: Path) -> str:
    """Return the part of a hint that names the file which the user can put into `dl` by hand."""
    if source.sha256:
        return (
            f"or put the file there by hand: {(dl / source.filename).absolute()} (sha256"
            f" {source.sha256})"
        )
    record = (dl / f"{source.name}.json").absolute()
    return (
        f"or copy {record} and the file that it names from a place where this source was fetched"
        " before"
    )
