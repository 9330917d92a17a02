"""The ledger: digests of the sources that the objects of a folder were made from.

Make compares times, but content counts. A source that was restored with its old time, or edited
after the clock was set back, is older than its object, and make considers the object up to date.
Such objects are removed before make runs. After an ordinary edit nothing is removed, and make
decides alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from tasks.cache.digests import Stamps
from tasks.kbuild import manifest, symbol_times, trace
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.records import target_of
from tasks.system import files
from tasks.system.files import decoded, touched, write_whole

FILE = "piggyback.ledger"
CLOCK = manifest.CLOCK
DEEPEST = 12  # folders below a watched one that are searched
NEVER = 1 << 63  # ns since 1970; later than any target
UNSURE = "?"  # the source changed while make ran: the object may have either content


class _Ledger(msgspec.Struct):
    """The content of the ledger, written when the last make ended.

    Attributes:
        digests: Each source that an object was made from, to the digest of its content.
        whole: Whether the last make succeeded, so that no source is missing.
        folders: Each folder in which headers are searched, to the digest of their list.
        since: When the last make began, ns since 1970.
        named: The state of files that symbols name (see named_files.Named.digests).
    """

    digests: dict[str, str] = {}
    whole: bool = True
    folders: dict[str, str] = {}
    since: int = 0
    named: dict[str, str] = {}


@contextlib.contextmanager
def kept(
    obj: Path, source: Path, stamps: Stamps, roots: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Guard a run of make in the body of a `with`.

    Before it, objects that make would wrongly consider up to date are removed; after it, the
    digests of their sources are recorded.

    Args:
        obj: The object folder, after manifest.purge.
        source: The tree.
        stamps: Digests of files.
        roots: The state of files that symbols name (see named_files.Named.digests); None:
            unchanged.
    """
    _wind_forward(obj)
    ledger = _read(obj)
    roots = ledger.named if roots is None else roots
    _remove_renamed(obj, ledger, roots)
    changed = {path for path, digest in ledger.digests.items() if stamps.digest(path) != digest}
    depfiles = Depfiles(obj, source)
    if changed or not ledger.whole:
        _remove_hidden(depfiles, ledger, changed, trace.prerequisites(obj))
    others = [
        folder for folder, digest in ledger.folders.items() if stamps.digest(folder) != digest
    ]
    if others or not ledger.whole:
        _remove_shadowed(depfiles, ledger, others)
    _remove_pasting(depfiles)
    digests = {path: stamps.digest(path) for path in ledger.digests if os.path.exists(path)}
    folders = {folder: stamps.digest(folder) for folder in ledger.folders}
    started = time.time_ns()
    _write(obj, _Ledger(digests, False, folders, started, dict(roots)))
    try:
        yield
    finally:
        _touch(obj)
        manifest.keep(obj)
    depfiles = Depfiles(obj, source)
    for path in depfiles.with_folders(
        {*depfiles.files(), *(path for _, path in trace.prerequisites(obj))}
    ):
        part = folders if path.endswith("/") else digests
        if touched(path, started, missing=True):
            part[path] = UNSURE
        elif path not in part:
            part[path] = stamps.digest(path)
    _write(obj, _Ledger(digests, True, folders, started, dict(roots)))


def edited(obj: Path, stamps: Stamps) -> set[str]:
    """Return the sources with another content than the objects were made from."""
    digests = _read(obj).digests
    return {path for path, digest in digests.items() if stamps.digest(path) != digest}


def trusted(obj: Path) -> bool:
    """Tell whether the last make on an object folder succeeded, and did not end in the future."""
    return _read(obj).whole and _ahead(obj) <= 0


@contextlib.contextmanager
def renewed(obj: Path, stamps: Stamps, depfiles: Depfiles, made: Collection[str]) -> Iterator[bool]:
    """Guard the replay of single commands in the body of a `with`, as `kept` guards make.

    The body puts the .cmd files that it renews into `made`, and refreshes `depfiles`.

    Args:
        obj: The object folder; it must be `trusted`.
        stamps: Digests of files.
        depfiles: Its .cmd files.
        made: Filled by the body.

    Yields:
        False if the body must do nothing: a source changed, and `depfiles` does not have all .cmd
        files, so that the targets made from it are not known.
    """
    ledger = _read(obj)
    digests = ledger.digests
    changed = {
        path
        for path in depfiles.given()
        if path in digests and stamps.digest(path) != digests[path]
    }
    if changed:
        if not depfiles.whole:
            yield False
            return
        _remove_hidden(depfiles, ledger, changed)
        digests = {**digests, **{path: stamps.digest(path) for path in changed}}
        _write(obj, _Ledger(digests, False, ledger.folders, ledger.since, ledger.named))
    started = time.time_ns()
    try:
        yield True
    finally:
        _touch(obj)
    read = depfiles.given(made)
    fresh, folders = (
        {
            path: UNSURE
            if touched(path, started, missing=True)
            else known.get(path) or stamps.digest(path)
            for path in paths
        }
        for paths, known in ((read, digests), (_other_folders(depfiles, ledger, read), {}))
    )
    if changed or folders or any(digests.get(path) != digest for path, digest in fresh.items()):
        folders = {**ledger.folders, **folders}
        _write(obj, _Ledger({**digests, **fresh}, True, folders, ledger.since, ledger.named))


def _other_folders(depfiles: Depfiles, ledger: _Ledger, read: Iterable[str]) -> set[str]:
    """Return the folders that the ledger lacks of those where a new header would count.

    Args:
        depfiles: The .cmd files.
        ledger: The ledger.
        read: The files that were read since it was written.
    """
    lie = {f"{os.path.dirname(path)}/" for path in read if path.startswith(f"{depfiles.tree}/")}
    if lie <= ledger.folders.keys():
        return set()
    found = depfiles.with_folders(depfiles.files())
    return {path for path in found if path.endswith("/")} - ledger.folders.keys()


def _remove_renamed(obj: Path, ledger: _Ledger, roots: Mapping[str, str]) -> None:
    """Remove the targets made from files that symbols name, if the state of these changed.

    Make notices neither another mode nor an older time.
    """
    from tasks.kbuild import named_files

    if changed := {
        root for root in {*roots, *ledger.named} if roots.get(root) != ledger.named.get(root)
    }:
        for target in named_files.targets(obj, changed, trace.prerequisites(obj)):
            with contextlib.suppress(FileNotFoundError):
                os.remove(obj / target)


def _remove_pasting(depfiles: Depfiles) -> None:
    """Remove the objects that are older than a symbol whose name their sources put together."""
    times = symbol_times.times(depfiles.obj)
    for record, names in depfiles.pasting(times).items():
        target = target_of(record)
        if 0 <= files.changed(target) < max(times[name] for name in names):
            os.remove(target)


def _remove_hidden(
    depfiles: Depfiles, ledger: _Ledger, changed: set[str], edges: Iterable[tuple[str, str]] = ()
) -> None:
    """Remove the targets whose sources changed unnoticed by make.

    After a make that failed, a source that the ledger lacks is suspect if its ctime is later than
    the target's mtime.

    Args:
        depfiles: The .cmd files.
        ledger: The ledger.
        changed: The sources with another content than in the ledger.
        edges: Pairs of a target, relative to the object folder, and one of its prerequisites.
    """
    edges = list(edges)
    known = {*depfiles.files(), *(path for _, path in edges)}
    strangers = set() if ledger.whole else {path for path in known if path not in ledger.digests}
    named: dict[str, list[str]] = {}
    for record, names in depfiles.naming(changed | strangers).items():
        named[target_of(record)] = list(names)
    for target, path in edges:
        if path in changed or path in strangers:
            named.setdefault(os.path.join(depfiles.obj, target), []).append(path)
    for target, names in named.items():
        with contextlib.suppress(FileNotFoundError):
            made = os.stat(target).st_mtime_ns
            if any(_hidden(name, made, name in changed) for name in names):
                os.remove(target)


def _hidden(source: str, made: int, changed: bool) -> bool:
    """Tell whether make can't see a source's change by the times.

    That holds for a missing source, too: Kbuild declares all targets .SECONDARY, and make considers
    a target up to date if such a prerequisite is missing.

    Args:
        source: The source.
        made: The target's mtime, ns since 1970.
        changed: Whether the source's content differs from the ledger.
    """
    try:
        info = os.stat(source)
    except FileNotFoundError:
        return True
    return info.st_mtime_ns <= made and (changed or info.st_ctime_ns > made)


def _remove_shadowed(depfiles: Depfiles, ledger: _Ledger, folders: Iterable[str]) -> None:
    """Remove the targets for which a new header hides one that they were compiled with.

    The compiler takes the first header that it finds, and make does not look for new ones. A header
    below include/ is included by its path from there on, as in <linux/types.h>, any other one by
    its file name. <asm/...> leads to asm-generic/ if the architecture has no such header
    (scripts/Makefile.asm-generic).

    After a make that failed, there may be folders that the ledger lacks. What came into these after
    a target was made counts for it.

    Args:
        depfiles: The .cmd files.
        ledger: The ledger.
        folders: The folders whose list of headers changed.
    """
    known = {*ledger.digests, *(() if ledger.whole else depfiles.files())}
    new = dict.fromkeys(dict(_new_headers(ledger, folders)), NEVER)
    if not ledger.whole:
        others = _other_folders(depfiles, ledger, known)
        new = {**dict(_new_headers(msgspec.structs.replace(ledger, digests={}), others)), **new}
    by_name: dict[str, list[str]] = {}
    for path in new:
        by_name.setdefault(os.path.basename(path), []).append(path)
    old: dict[str, int] = {}  # headers that others hide, to the last time that one of these came
    for path in known:
        for other in by_name.get(os.path.basename(path), ()):
            if other != path and other.endswith(_include_names(path)):
                old[path] = max(new[other], old.get(path, 0))
    for record, names in depfiles.naming(old).items():
        target = target_of(record)
        if 0 <= files.changed(target) < max(old[name] for name in names):
            os.remove(target)


def _new_headers(ledger: _Ledger, folders: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Yield the headers in these folders that are newer than the start of the last make.

    All headers of a new folder count: one that was moved here keeps the times of what is in it.

    Yields:
        Each with the time since when it is there, ns since 1970.
    """
    for folder in folders:
        yield from _headers(folder.rstrip("/"), ledger, 0, 0)


def _headers(folder: str, ledger: _Ledger, came: int, depth: int) -> Iterator[tuple[str, int]]:
    """Yield the headers of one folder, as `_new_headers` does.

    Args:
        folder: The folder.
        ledger: The ledger.
        came: When the folder came, ns since 1970; 0 if it was there when the last make began.
        depth: How many folders it is below the first one; links may lead in circles.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            since = max(came, entry.stat(follow_symlinks=False).st_ctime_ns)
            if since < ledger.since:
                continue
            if entry.name.endswith(".h"):
                if entry.path not in ledger.digests:
                    yield entry.path, since
            elif depth < DEEPEST and entry.is_dir():
                yield from _headers(entry.path, ledger, since, depth + 1)


def _include_names(header: str) -> tuple[str, ...]:
    """Return the names, each after a "/", by which #include may name a header."""
    name = (
        re.split(r"/include/(?:uapi/)?", header)[-1]
        if "/include/" in header
        else os.path.basename(header)
    )
    generic = [name.replace("asm-generic/", "asm/", 1)] if name.startswith("asm-generic/") else []
    return tuple(f"/{each}" for each in [name, *generic])


def _wind_forward(obj: Path) -> None:
    """If the clock was set back since the last make, set all files back by the same amount.

    Their order stays the same. Make relies on files that are not newer than now.
    """
    ahead = _ahead(obj)
    if ahead > 0:
        for folder, _, names in os.walk(obj):
            for name in names:
                path = os.path.join(folder, name)
                info = os.lstat(path)
                os.utime(
                    path,
                    ns=(info.st_atime_ns, info.st_mtime_ns - ahead - 1_000_000_000),
                    follow_symlinks=False,
                )


def _ahead(obj: Path) -> int:
    """Return how many ns the end of the last make lies in the future; negative for the past."""
    try:
        return os.stat(obj / CLOCK).st_mtime_ns - time.time_ns()
    except FileNotFoundError:
        return 0


def _touch(obj: Path) -> None:
    with contextlib.suppress(OSError):
        (obj / CLOCK).touch()


def _read(obj: Path) -> _Ledger:
    if not os.path.lexists(obj / FILE):
        return _Ledger(whole=not obj.exists() or not any(obj.glob("*/*.o")))
    return decoded(obj / FILE, _Ledger, _Ledger(whole=False))


def _write(obj: Path, ledger: _Ledger) -> None:
    write_whole(obj / FILE, files.packed(ledger))
