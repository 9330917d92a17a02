"""The ledger: digests of the sources that the objects of a folder were made from.

Make compares times, but content counts. A source that was restored with its old time, or edited
after the clock was set back, is older than its object, and make considers the object up to date.
Such objects are removed before make runs. After an ordinary edit nothing is removed, and make
decides alone.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from tasks.cache.digests import Stamps
from tasks.kbuild import manifest, object_rules, shadowing, symbol_times, trace
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.records import target_of
from tasks.system import files
from tasks.system.files import decoded, touched, write_whole

FILE = "piggyback.ledger"
CLOCK = manifest.CLOCK
NEVER = 1 << 63  # ns since 1970; later than any target
UNSURE = "?"  # the source changed while make ran: the object may have either content


class _Ledger(msgspec.Struct):
    """The content of the ledger, written when the last make ended, well or not.

    A make that was killed leaves what was written when it began.

    Attributes:
        digests: Each source that an object was made from, to the digest of its content.
        whole: Whether the last make succeeded, so that no source is missing.
        folders: Each folder in which headers are searched, to the digest of their list.
        since: When the last make began, ns since 1970.
        named: The state of files that symbols name (see named_files.Named.digests).
        tree: The inode of the tree.
        rules: Each folder with rules of its own, to their state (see object_rules.Own).
    """

    digests: dict[str, str] = {}
    whole: bool = True
    folders: dict[str, str] = {}
    since: int = 0
    named: dict[str, str] = {}
    tree: int = 0
    rules: dict[str, str] = {}


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
    ledger, tree = _read(obj), identity(source)
    wound = _wind_forward(obj, ledger.since)
    roots = ledger.named if roots is None else roots
    _remove_renamed(obj, ledger, roots)
    changed = {path for path, digest in ledger.digests.items() if stamps.digest(path) != digest}
    depfiles = Depfiles(obj, source)
    if changed or not ledger.whole:
        doubt = not ledger.whole and (wound or tree != ledger.tree)
        _remove_hidden(depfiles, ledger, changed, trace.prerequisites(obj), doubt)
    others = [path for path, digest in ledger.folders.items() if stamps.digest(path) != digest]
    if others or not ledger.whole:
        _remove_shadowed(depfiles, ledger, others)
    _remove_pasting(depfiles)
    rules = object_rules.remove(obj, depfiles.tree, depfiles.records, ledger.rules)
    # What changed is entered when make ended well: its objects may not be made before that.
    digests = {path: digest for path, digest in ledger.digests.items() if path not in changed}
    folders = {folder: stamps.digest(folder) for folder in ledger.folders}
    ledger = _Ledger(digests, False, folders, time.time_ns(), dict(roots), tree, rules)
    _write(obj, ledger)
    try:
        yield
    except Exception:  # nobody waits for this after Ctrl-C
        _ended(obj)
        with contextlib.suppress(OSError, ValueError):  # ValueError: a .cmd file that was cut
            _enter(obj, source, stamps, ledger, changed)
        raise
    except BaseException:
        _ended(obj)
        raise
    _ended(obj)
    ledger.whole = True
    _enter(obj, source, stamps, ledger)


def _ended(obj: Path) -> None:
    """Write down how make left an object folder."""
    _touch(obj)
    manifest.keep(obj)


def _enter(
    obj: Path,
    source: Path,
    stamps: Stamps,
    ledger: _Ledger,
    without: Collection[str] = (),
) -> None:
    """Enter into a ledger, and write, what the targets of a folder were made from.

    Args:
        obj: The object folder.
        source: The tree.
        stamps: Digests of files.
        ledger: The ledger of a make that ended.
        without: Sources that are left out.
    """
    depfiles = Depfiles(obj, source)
    lost = depfiles.lost(ledger.since)
    needed = {path for _, path in trace.prerequisites(obj)} | lost
    for path in depfiles.with_folders({*depfiles.files(missing=True), *needed}):
        part = ledger.folders if path.endswith("/") else ledger.digests
        if path in lost or touched(path, ledger.since, missing=path in needed):
            part[path] = UNSURE
        elif path not in part and path not in without:
            part[path] = stamps.digest(path)
    ledger.rules |= object_rules.states(obj, depfiles.tree, depfiles.records, ledger.since)
    _write(obj, ledger)


def identity(tree: Path) -> int:
    """Return the inode of a tree: another one may have been moved to its place."""
    return os.stat(tree).st_ino


def edited(obj: Path, stamps: Stamps) -> set[str]:
    """Return the sources with another content than the objects were made from."""
    digests = _read(obj).digests
    return {path for path, digest in digests.items() if stamps.digest(path) != digest}


def trusted(obj: Path) -> bool:
    """Tell whether the last make on an object folder succeeded, and did not end in the future."""
    return _read(obj).whole and _ahead(obj) <= 0


def doubt(obj: Path) -> None:
    """Write down that objects may have been made from sources that the ledger lacks."""
    _write(obj, msgspec.structs.replace(_read(obj), whole=False))


@contextlib.contextmanager
def renewed(
    obj: Path,
    stamps: Stamps,
    depfiles: Depfiles,
    made: Collection[str],
    more: bool = False,
) -> Iterator[bool]:
    """Guard the replay of single commands in the body of a `with`, as `kept` guards make.

    The body puts the .cmd files that it renews into `made`, and refreshes `depfiles`.

    Args:
        obj: The object folder; it must be `trusted`.
        stamps: Digests of files.
        depfiles: Its .cmd files.
        made: Filled by the body.
        more: Whether the body makes objects that were not there before.

    Yields:
        False if the body must do nothing: a source changed, and `depfiles` does not have all .cmd
        files, so that the targets made from it are not known.
    """
    ledger = _read(obj)
    digests = ledger.digests
    known = [path for path in depfiles.given() if path in digests]
    changed = {path for path in known if stamps.digest(path) != digests[path]}
    if changed:
        if not depfiles.whole:
            yield False
            return
        _remove_hidden(depfiles, ledger, changed)
        digests = {**digests, **{path: stamps.digest(path) for path in changed}}
    if changed or more:
        sure = {path: digest for path, digest in digests.items() if path not in changed}
        _write(obj, msgspec.structs.replace(ledger, digests=sure, whole=False))
    started = time.time_ns()
    try:
        yield True
    finally:
        _touch(obj)
    lost = depfiles.lost(started, made)
    read = {*depfiles.files(made, missing=True), *lost}
    others = shadowing.folders(depfiles, ledger.folders, read)
    fresh = {**_as_read(read, started, digests, stamps), **dict.fromkeys(lost, UNSURE)}
    folders = _as_read(others, started, {}, stamps)
    if (
        changed
        or more
        or folders
        or any(digests.get(path) != digest for path, digest in fresh.items())
    ):
        digests, folders = {**digests, **fresh}, {**ledger.folders, **folders}
        _write(obj, msgspec.structs.replace(ledger, digests=digests, folders=folders))


def _as_read(
    paths: Iterable[str], started: int, known: Mapping[str, str], stamps: Stamps
) -> dict[str, str]:
    """Return the digests of what was read since a time (ns since 1970); UNSURE for what changed."""
    return {
        path: UNSURE
        if touched(path, started, missing=False)
        else known.get(path) or stamps.digest(path)
        for path in paths
    }


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
    depfiles: Depfiles,
    ledger: _Ledger,
    changed: set[str],
    edges: Iterable[tuple[str, str]] = (),
    doubt: bool = False,
) -> None:
    """Remove the targets whose sources changed unnoticed by make.

    After a make that failed, a source that the ledger lacks is suspect if its ctime is later than
    the target's mtime.

    Args:
        depfiles: The .cmd files.
        ledger: The ledger.
        changed: The sources with another content than in the ledger.
        edges: Pairs of a target, relative to the object folder, and one of its prerequisites.
        doubt: Whether times tell nothing of a source that the ledger lacks.
    """
    edges = list(edges)
    strangers = set[str]()
    if not ledger.whole:
        strangers.update(depfiles.files(missing=True), (path for _, path in edges))
        strangers |= depfiles.lost(0 if doubt else ledger.since)
        strangers -= ledger.digests.keys()
    if doubt:
        changed = changed | strangers
    named: dict[str, list[str]] = {}
    unseen: set[str] = set()
    given = depfiles.naming(changed | strangers, commands=False)
    for record, names in depfiles.naming(changed | strangers).items():
        named[target_of(record)] = list(names)
        # Make does not look at what a command or a text names, unless it is a prerequisite, too.
        if not {*names} <= {*given.get(record, ())}:
            unseen.add(target_of(record))
    for target, path in edges:
        if path in changed or path in strangers:
            named.setdefault(os.path.join(depfiles.obj, target), []).append(path)
    for target, names in named.items():
        with contextlib.suppress(FileNotFoundError):
            made = os.stat(target).st_mtime_ns
            if target in unseen or any(_hidden(name, made, name in changed) for name in names):
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
    except (OSError, ValueError):
        return True
    return info.st_mtime_ns <= made and (changed or touched(source, made + 1, missing=True))


def _remove_shadowed(depfiles: Depfiles, ledger: _Ledger, folders: Iterable[str]) -> None:
    """Remove the targets for which a new header hides one that they were compiled with.

    After a make that was killed, there may be folders that the ledger lacks. What came into these
    after a target was made counts for it.

    Args:
        depfiles: The .cmd files.
        ledger: The ledger.
        folders: The folders whose list of headers changed.
    """
    since, known = ledger.since, {*ledger.digests}
    new = dict.fromkeys(shadowing.new_headers(folders, since, known), NEVER)
    if not ledger.whole:
        known.update(depfiles.files())
        there = {parent for path in known for parent in _above(path, depfiles.tree)}
        others = shadowing.folders(depfiles, ledger.folders, known)
        new = {**shadowing.new_headers(others, since, (), there), **new}
    shadowing.remove(depfiles, known, new)


def _above(path: str, top: str) -> Iterator[str]:
    """Yield the folders that a file of the tree lies in."""
    while len(path := os.path.dirname(path)) > len(top):
        yield path


def _wind_forward(obj: Path, since: int) -> bool:
    """If the clock was set back since the last make, set all files back by the same amount.

    Their order stays the same. Make relies on files that are not newer than now, and takes a time
    of before 1970 for one of the far future, so what has the oldest time (configure.put) keeps it.

    Args:
        obj: The object folder.
        since: When the last make began, ns since 1970.

    Returns:
        Whether it was set back.
    """
    ahead = _ahead(obj)
    if since > time.time_ns() and ahead <= 0:  # it was killed
        times = (files.changed(path, follow=False) for path in obj.rglob("*"))
        ahead = max(since, *times) - time.time_ns()
    if ahead > 0:
        for folder, _, names in os.walk(obj):
            for name in names:
                path = os.path.join(folder, name)
                info = os.lstat(path)
                earlier = max(0, info.st_mtime_ns - ahead - 1_000_000_000)
                os.utime(path, ns=(info.st_atime_ns, earlier), follow_symlinks=False)
    return ahead > 0


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
