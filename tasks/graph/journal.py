"""What finished stays finished: doit's results are on disk before the next task starts.

doit writes its database when the run ends, so that a kill loses every task of the run. Here each
success is committed at once. Before a task starts its record is marked as unfinished: a task that
fails or dies half-way is never taken for done, and what changed since its last success is still
known.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from doit.dependency import Dependency, FileChangedChecker, SqliteDB
from doit.task import Task

from tasks.graph.reason import Record
from tasks.system.errors import PiggyError
from tasks.system.files import open_regular

PATIENCE = 5.0  # seconds; another run writes for some milliseconds at most
HELD = (
    "other runs of doit hold it for moments only: end what has it open, or was stopped meanwhile,"
    " and run doit again"
)
UNFINISHED = "unfinished"
SQLITE_MAGIC = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html, section 1.3
BESIDE = (
    "-journal",
    "-wal",
    "-shm",
)  # what SQLite may keep beside a database: https://www.sqlite.org/tempfiles.html
_THINGS = {
    ("table", "doit"),
    ("index", "sqlite_autoindex_doit_1"),
}  # what doit makes: a table with a primary key


class Codec:
    """How doit writes a record, and reads it.

    It is the same JSON as its own codec's, in a fraction of the time.
    """

    def encode(self, data: dict[str, Any]) -> str:
        """Return a record as text."""
        try:
            return msgspec.json.encode(data).decode()
        except UnicodeEncodeError:  # the name of a file that is no UTF-8
            return json.dumps(data)

    def decode(self, text: str) -> dict[str, Any]:
        """Return the record that a text holds.

        For what we do not write it is an empty one, by which the task was never done.
        """
        try:
            try:
                record = msgspec.json.decode(text, type=dict[str, Any])
            except msgspec.DecodeError:  # names that are no UTF-8, as json.dumps writes them
                record = json.loads(text)
            return record if _well_formed(record) else {}
        except (ValueError, TypeError, RecursionError):
            return {}


def _well_formed(record: Any) -> bool:
    """Tell whether a record has the shape that others count on.

    These are doit (deps, values), Inputs (its own record, nothing but text) and actions (the number
    of commands).

    Raises:
        TypeError: It has not, too.
    """
    if not isinstance(record, dict):
        return False
    values, deps = record.get("_values_:") or {}, record.get("deps:") or []
    if not isinstance(values, dict) or not isinstance(deps, list):
        return False
    inputs, commands = values.get("record", {}), values.get("commands", 0)
    if not isinstance(inputs, dict) or not all(isinstance(part, dict) for part in inputs.values()):
        return False
    for texts in (deps, *(part.values() for part in inputs.values())):
        "".join(texts)  # the fastest way to see that there is nothing else
    return isinstance(commands, int) and 0 <= commands < 1 << 31


class Present(FileChangedChecker):
    """doit's own look at declared input files: they must be there, and that is all.

    Their content is compared with everything else (see Inputs); doit would read a file that was
    touched anew at every run.
    """

    def check_modified(self, file_path: str, file_stat: os.stat_result, state: bool) -> bool:
        """Tell doit whether a file that is there has changed."""
        return False

    def get_state(self, dep: str, current_state: bool | None) -> bool:
        """Tell doit what to keep of a file."""
        return True


def prepare(path: Path) -> None:
    """Make the journal's folder, and move a journal aside that can't be read.

    All that it costs is time.

    Args:
        path: The journal.

    Raises:
        PiggyError: There is a folder in its place, its own folder can't be made, or another
            program holds it.
        OSError: The folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PiggyError(
            f"the folder {path.parent} can't be made: {error.strerror}",
            "'build=' names the folder that all is built in; it has to be one that can be written",
        ) from error
    beside = [path.with_name(path.name + suffix) for suffix in BESIDE]
    for one in beside:
        if not _regular(one):
            one.unlink()
    if _regular(path):
        try:
            with open(open_regular(path), "rb") as stream:
                start = stream.read(len(SQLITE_MAGIC))
        except FileNotFoundError:
            return
        if not start or start == SQLITE_MAGIC and _sound(path):
            return
    aside = path.with_suffix(".damaged")
    _regular(aside)
    path.replace(aside)
    for one in beside:
        one.unlink(missing_ok=True)  # or it would be rolled back into the new one


def _regular(path: Path) -> bool:
    """Return False for a link, a pipe, a device; True for a file, and for none.

    Raises:
        PiggyError: It is a folder.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return True
    if stat.S_ISDIR(mode):
        raise PiggyError(
            f"{path} is a folder, and a file of the journal belongs there",
            "move it away, and run doit again",
        )
    return stat.S_ISREG(mode)


def _sound(path: Path) -> bool:
    """Tell whether every record in it can be read, and there is nothing else.

    Raises:
        PiggyError: Another program keeps it from being read.
    """
    import sqlite3  # as doit does itself

    try:
        with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
            things = {*database.execute("select type, name from sqlite_master")}
            if database.execute("pragma integrity_check").fetchall() != [("ok",)]:
                return False  # it can be read, perhaps, but not written to
            if not things:
                return True  # doit makes the table
            return things == _THINGS and all(
                isinstance(_skimmed(data), dict)
                for _, data in database.execute("select task_id, task_data from doit")
            )
    except sqlite3.Error as error:
        if locked(error):
            raise PiggyError(f"{path} is held by another program", HELD) from error
        return False
    except (ValueError, TypeError, RecursionError):  # of msgspec, json, and the decoding of text
        return False


def locked(error: Exception) -> bool:
    """Tell whether an error is sqlite's for a database that another program has locked."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _skimmed(text: str) -> Any:
    """Return a record, looked at no closer than to know that it is JSON."""
    try:
        return msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return json.loads(text)


def records(path: Path) -> dict[str, Record]:
    """Return the record of each task whose last run succeeded, of a journal that nobody writes to.

    Args:
        path: The journal; {} for one that can't be read.
    """
    import sqlite3  # as doit does itself

    try:
        with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
            rows = database.execute("select task_id, task_data from doit").fetchall()
    except sqlite3.Error:
        return {}
    values = {name: Codec().decode(data).get("_values_:") or {} for name, data in rows}
    return {
        name: known["record"]
        for name, known in values.items()
        if "record" in known and UNFINISHED not in known
    }


def commit(backend: SqliteDB) -> None:
    """Write what doit has only in memory, as SqliteDB.dump does, but leave the database open."""
    for task_id in backend._dirty:
        backend._conn.execute(
            "insert or replace into doit values (?,?)",
            (task_id, backend.codec.encode(backend._cache[task_id])),
        )
    backend._conn.commit()
    backend._dirty = set()


def unfinish(
    manager: Dependency,
    task: Task,
    values: Mapping[str, Any],
    mark: Mapping[str, str] | bool = True,
) -> None:
    """Forget that a task succeeded, but not what its last success was made from.

    Args:
        manager: doit's records.
        task: doit's task.
        values: What was kept of its last success.
        mark: The digests of its outputs as they are before it runs, where they are good as long as
            it has not changed them; True where they are not.
    """
    manager.remove_success(task)
    if not values:
        return
    manager._set(task.name, "_values_:", {**values, UNFINISHED: mark})
    if mark is not True:
        for path in task.file_dep:  # or doit runs it without asking further
            manager._set(task.name, path, Present().get_state(path, None))


@contextlib.contextmanager
def removing(manager: Dependency) -> Iterator[None]:
    """Pass over records that can't be removed in the body of a `with`.

    The disk may be full. A task that failed is marked as unfinished already.

    Args:
        manager: doit's records.
    """
    import sqlite3  # as doit does itself

    remove = manager.remove

    def attempted(task_id: str) -> None:
        with contextlib.suppress(sqlite3.Error):
            remove(task_id)

    manager.remove = attempted
    try:
        yield
    finally:
        manager.remove = remove


def to_write(manager: Dependency) -> None:
    """Have this run's records written without waiting for the disk, which takes 10 ms a task.

    If the power fails, the database may be damaged; that is found at the next start, and costs the
    records. Source: sqlite's manual, PRAGMA synchronous.
    """
    manager.backend._conn.execute("pragma synchronous=off")


def only_read(manager: Dependency) -> None:
    """Have nothing of this run written.

    Another one may be at work, and what only reads has nothing to record.
    """
    manager.remove = lambda task_id: None
    manager.backend.dump = manager.backend._conn.close


def give_up(backend: SqliteDB) -> None:
    """Drop what could not be written.

    Then doit's own writing at the end does not fail over it once more.
    """
    with contextlib.suppress(Exception):
        backend._conn.rollback()
    backend._dirty = set()
