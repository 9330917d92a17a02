"""The ledger: the content that the objects of a folder were really made from.

Make compares times; what counts is content. A source that was put back with its old time, or edited
after the clock was set back, is older than its object, and make takes the object for good. Before
make runs, such objects are removed, so that it makes them again. After an edit in the ordinary way
nothing is removed, and make decides alone.
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
from tasks.kbuild import manifest, trace
from tasks.kbuild.depfiles import Depfiles
from tasks.system.files import decoded, touched, write_whole

FILE = "piggyback.ledger"
CLOCK = "piggyback.clock"
UNSURE = "?"  # changed while make ran: no telling which content an object has


class _Ledger(msgspec.Struct):
    """What was written down when the last make ended.

    digests: of every source that an object was made from; whole: the last make ended well, so that
    none is missing; folders: which headers there were, where one is looked for; since: when the
    last make began (ns since 1970); named: the state of what symbols name (see
    named_files.Named.digests).
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
    """Run make on an object folder in the body of a `with`.

    Before it, objects that make would wrongly take for good are removed; after it, what the objects
    were made from is written down.

    Args:
        obj: The object folder, of which manifest.purge was done.
        source: The tree.
        stamps: Digests of files.
        roots: The state of what symbols name (see named_files.Named.digests); None: as it was.
    """
    _wind_forward(obj)
    ledger = _read(obj)
    roots = ledger.named if roots is None else roots
    _remove_renamed(obj, ledger, roots)
    changed = {path for path, digest in ledger.digests.items() if stamps.digest(path) != digest}
    if changed or not ledger.whole:
        _remove_hidden(Depfiles(obj, source), ledger, changed, trace.prerequisites(obj))
    if others := [
        folder for folder, digest in ledger.folders.items() if stamps.digest(folder) != digest
    ]:
        _remove_shadowed(Depfiles(obj, source), ledger, others)
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


def trusted(obj: Path) -> bool:
    """Did the last make on an object folder end well, and with the clock not ahead of now?"""
    return _read(obj).whole and _ahead(obj) <= 0


@contextlib.contextmanager
def renewed(obj: Path, stamps: Stamps, depfiles: Depfiles, made: Collection[str]) -> Iterator[bool]:
    """Run in the body of a `with` what is known to renew certain records; else like `kept`.

    The body puts the records into `made` and refreshes `depfiles`. Only a folder that is `trusted`
    will do. Yields False, and then the body must do nothing, when a source changed and `depfiles`
    does not hold all records, so that there is no telling what was made from it.
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
    fresh = {
        path: UNSURE
        if touched(path, started, missing=True)
        else digests.get(path) or stamps.digest(path)
        for path in depfiles.given(made)
    }
    if changed or any(digests.get(path) != digest for path, digest in fresh.items()):
        _write(obj, _Ledger({**digests, **fresh}, True, ledger.folders, ledger.since, ledger.named))


def _remove_renamed(obj: Path, ledger: _Ledger, roots: Mapping[str, str]) -> None:
    """Remove the targets made from what symbols name, where that has another state now.

    Make sees neither a new mode nor an old time.
    """
    from tasks.kbuild import named_files

    if changed := {
        root for root in {*roots, *ledger.named} if roots.get(root) != ledger.named.get(root)
    }:
        for target in named_files.targets(obj, changed, trace.prerequisites(obj)):
            with contextlib.suppress(FileNotFoundError):
                os.remove(obj / target)


def _remove_hidden(
    depfiles: Depfiles, ledger: _Ledger, changed: set[str], edges: Iterable[tuple[str, str]] = ()
) -> None:
    """Remove the targets made from other content than their sources have now.

    Only those go of which make can't tell. A source that the ledger does not know, after a make
    that did not end well, is suspect when it was changed in any way (its ctime) after the target
    was made.

    Args:
        depfiles: The records.
        ledger: What was kept.
        changed: The sources with other content.
        edges: Targets, relative to the object folder, with a file of which make said that they are
            made from it.
    """
    edges = list(edges)
    known = {*depfiles.files(), *(path for _, path in edges)}
    strangers = set() if ledger.whole else {path for path in known if path not in ledger.digests}
    named: dict[str, list[str]] = {}
    for record, names in depfiles.naming(changed | strangers).items():
        named[os.path.join(os.path.dirname(record), os.path.basename(record)[1 : -len(".cmd")])] = (
            list(names)
        )
    for target, path in edges:
        if path in changed or path in strangers:
            named.setdefault(os.path.join(depfiles.obj, target), []).append(path)
    for target, names in named.items():
        with contextlib.suppress(FileNotFoundError):
            made = os.stat(target).st_mtime_ns
            if any(_hidden(name, made, name in changed) for name in names):
                os.remove(target)


def _hidden(source: str, made: int, changed: bool) -> bool:
    """Tell whether a source's change is one that make can't see by a target's time.

    A source that is gone is such a one: Kbuild says that all targets are .SECONDARY, and what is
    made from a missing one of these counts as fresh.

    Args:
        source: The source.
        changed: Whether its content is another one.
        made: When the target was made (ns since 1970).
    """
    try:
        info = os.stat(source)
    except FileNotFoundError:
        return True
    return info.st_mtime_ns <= made and (changed or info.st_ctime_ns > made)


def _remove_shadowed(depfiles: Depfiles, ledger: _Ledger, folders: Iterable[str]) -> None:
    """Remove the targets that would now be compiled with a new header.

    It takes the place of one that they were made from: the compiler takes the first that it finds,
    and make does not look for new ones.

    A header of .../include/ is taken to be named from there on, as in <linux/types.h>, any other
    one by its own name. One of asm-generic/ is what <asm/...> leads to where the architecture has
    none (scripts/Makefile.asm-generic).
    """
    new = set(_new_headers(ledger, folders))
    names = {os.path.basename(path) for path in new}
    old = {
        path
        for path in ledger.digests
        if os.path.basename(path) in names
        and any(other.endswith(_asked_for(path)) for other in new)
    }
    for record in depfiles.naming(old):
        with contextlib.suppress(FileNotFoundError):
            os.remove(
                os.path.join(os.path.dirname(record), os.path.basename(record)[1 : -len(".cmd")])
            )


def _new_headers(ledger: _Ledger, folders: Iterable[str]) -> Iterator[str]:
    """Yield the headers of these folders that came since the last make began.

    Those of include/ may be in a new folder there.
    """
    for folder in folders:
        for where, below, names in os.walk(folder):
            if "/include/" not in folder:
                below.clear()
            for path in (os.path.join(where, name) for name in names if name.endswith(".h")):
                with contextlib.suppress(FileNotFoundError):
                    if path not in ledger.digests and os.lstat(path).st_ctime_ns >= ledger.since:
                        yield path


def _asked_for(header: str) -> tuple[str, ...]:
    """The ends of paths that a header may be found by when it is included."""
    name = (
        re.split(r"/include/(?:uapi/)?", header)[-1]
        if "/include/" in header
        else os.path.basename(header)
    )
    generic = [name.replace("asm-generic/", "asm/", 1)] if name.startswith("asm-generic/") else []
    return tuple(f"/{each}" for each in [name, *generic])


def _wind_forward(obj: Path) -> None:
    """If the clock was set back since the last make, make all files older by as much.

    Their order stays. Files that are older than now is what make counts on.
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
    """How far (ns) the end of the last make lies in the future."""
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
    write_whole(obj / FILE, msgspec.msgpack.encode(ledger))
