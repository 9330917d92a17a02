"""Getting one file by HTTP.

Bounded, resumed where it broke off, tried again where that can help, its hash checked.

How often and how soon it is tried again, urllib3's Retry decides. It counts in the loop below, and
not in the adapter of requests: the adapter sees no body that breaks off, so two counters would
multiply; and before it asks again it reads the body of a 503 to its end, which may never come
(`HTTPResponse.drain_conn`).

The bytes go to FILE.part; beside it FILE.part.from says where they came from, so that a later call,
also after kill -9, goes on only with the same version of the file (RFC 9110, section 13.1.5,
If-Range). What was pieced together wrongly in spite of that is found by the hash, and fetched once
more from the start. Both lie where others may write, too: only plain files of our own are gone on
with.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from tasks.fetch import webclient
from tasks.fetch.webclient import Again, Answer, Unavailable
from tasks.system import address, files, terminal
from tasks.system.errors import PiggyError

if TYPE_CHECKING:
    from urllib3 import Retry

LIMIT = 1 << 30  # bytes: far above any source, far below a disk
MAX_TRIES = 30  # in all, on a line that breaks again and again
TRIES = 5  # in a row without progress
CONNECT_TRIES = 2  # where nobody even answers
PROGRESS = 1 << 20  # bytes that make a try a useful one
LONGEST_WAIT = 30.0  # seconds between two tries
_CHUNK = 1 << 16
# A strong entity tag, or a date (RFC 9110, sections 8.8.3 and 5.6.7): what is anything else is not
# sent back.
_VALIDATOR = re.compile(
    r'"[!#-~]{0,200}"|[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT', re.ASCII
)


class _Note(msgspec.Struct, frozen=True):
    """What FILE.part.from says.

    The address without its password, and what names that version of the file ("": nothing).
    """

    url: str
    validator: str


def download(
    url: str,
    part: Path,
    sha256: str,
    *,
    bar: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch `url` into the file `part`, going on with what is there, and check its sha256.

    bar: show progress on standard error; sleep: waits that many seconds between two tries. Raises
    Unavailable when this address can't give the file (`part` stays for going on, unless its hash
    was wrong), and PiggyError when it can't be written here (no space: `part` is removed).
    """
    from tqdm import tqdm

    pieced = begun(part) > 0
    retry = _patience(MAX_TRIES - 1)
    with (
        webclient.Client() as client,
        tqdm(
            desc=part.name.removesuffix(".part"),
            unit="B",
            unit_scale=True,
            disable=not bar,
            leave=False,
        ) as shown,
    ):
        while True:
            before = size_of(part)
            try:
                _one_try(client, url, part, shown)
            except Again as why:
                pieced = True
                if size_of(part) - before >= PROGRESS:
                    retry = _patience(int(retry.total or 0))
                retry = _counted(retry, url, why)
                sleep(_asked(retry, why.retry_after) or retry.get_backoff_time())
                continue
            found = files.sha256_of(part)
            if found == sha256:
                side_of(part).unlink(missing_ok=True)
                return
            discard(part)
            if not pieced:
                raise Unavailable(f"wrong content: its sha256 is {found}, and should be {sha256}")
            pieced = False  # what was pieced together may be at fault: once more, in one piece


def _patience(total: int) -> Retry:
    """Return the policy for tries to come, `total` at most.

    The first of them comes at once, the others after some 2, 4, 8 ... seconds.
    """
    from urllib3 import Retry

    return Retry(
        total,
        connect=CONNECT_TRIES - 1,
        read=TRIES - 1,
        backoff_factor=1,
        backoff_max=LONGEST_WAIT,
        backoff_jitter=1,
    )


def _counted(retry: Retry, url: str, why: Again) -> Retry:
    """Return the policy after one more failure. Raises Unavailable when no try is left."""
    from urllib3 import exceptions

    kind = exceptions.ConnectTimeoutError if why.connecting else exceptions.ProtocolError
    try:
        return retry.increment("GET", url, error=kind(str(why)))
    except exceptions.MaxRetryError:
        raise Unavailable(f"{why} ({MAX_TRIES - int(retry.total or 0)} tries)") from why


def _asked(retry: Retry, header: str) -> float:
    """Return the seconds that a server asks us to wait, within reason; 0 for no sensible word."""
    from urllib3.exceptions import InvalidHeader

    try:
        return min(retry.parse_retry_after(header), LONGEST_WAIT) if header else 0
    except (InvalidHeader, ValueError, OverflowError):  # a number or a date that is too long
        return 0


def size_of(path: Path) -> int:
    """Return a file's size in bytes, 0 for none; a link has none."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return 0
    return info.st_size if stat.S_ISREG(info.st_mode) else 0


def begun(part: Path) -> int:
    """Return how many bytes of a partial file can be gone on with.

    Those of a plain file of our own, with no second name.

    Anything else (a link, a pipe, somebody else's file) is removed, and its bytes are 0. Raises
    PiggyError for a folder.
    """
    with contextlib.suppress(FileNotFoundError):
        info = part.lstat()
        if not (stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid() and info.st_nlink == 1):
            discard(part)
    return size_of(part)


def side_of(part: Path) -> Path:
    """Return the path of the note on where `part` came from."""
    return part.with_name(part.name + ".from")


def discard(part: Path) -> None:
    """Remove a partial file and its note. Raises PiggyError where a folder is in their place."""
    for path in (part, side_of(part)):
        if path.is_dir() and not path.is_symlink():
            raise PiggyError(f"{path} is a folder, and a file belongs there", "move it away")
        with files.explained(path):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def written(part: Path, needed: int) -> Iterator[None]:
    """Explain what the disk refuses while `part` is written, `needed` bytes in all.

    A full one gets its space back.
    """
    try:
        with files.explained(part, needed):
            yield
    except PiggyError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in files.NO_SPACE:
            discard(part)
            raise files.no_space(part, needed) from error.__cause__
        raise


def _one_try(client: webclient.Client, url: str, part: Path, shown: Any) -> None:
    """Ask for the rest of the file, and add it to `part`; return when all of it has come."""
    headers = _headers(url, part)
    have = size_of(part) if "Range" in headers else 0
    with client.ask(url, headers) as answer:
        have = _start_of(answer, part, have)
        if have < 0:
            return
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if re.fullmatch(r"[0-9]{1,18}", length) else 0
        if total > LIMIT:
            raise Unavailable(
                f"it says the file has {terminal.human(total)}, and no source is that big"
            )
        if total - have > files.free(part.parent):
            discard(part)
            raise files.no_space(part, total)
        if not have:
            discard(part)
            note = _Note(address.shown(url), _validator(answer))
            with files.explained(part):
                files.write_whole(side_of(part), msgspec.json.encode(note) + b"\n")
        shown.total, shown.n = total or None, have
        _receive(answer, part, have, total, shown)


def _headers(url: str, part: Path) -> dict[str, str]:
    """Return the request's headers. No Content-Encoding: the hash is that of the file as it is.

    A partial file with a note that is not as we write them is nothing to go on with, and is removed
    with it.
    """
    headers = {"Accept-Encoding": "identity", "User-Agent": "piggyback"}
    have = begun(part)
    if have:
        try:
            note = _noted(part)
        except (
            OSError,
            ValueError,
            RecursionError,
        ):  # MsgspecError and UnicodeDecodeError are ValueErrors
            discard(part)
            return headers
        headers["Range"] = f"bytes={have}-"
        if note and note.validator and note.url == address.shown(url):
            headers["If-Range"] = note.validator
    return headers


def _noted(part: Path) -> _Note | None:
    """Return the note beside a partial file, None for none.

    Raises OSError or ValueError for one that is not ours.
    """
    try:
        note = msgspec.json.decode(files.read_regular(side_of(part), 1 << 16), type=_Note)
    except FileNotFoundError:
        return None
    if note.validator and not _VALIDATOR.fullmatch(note.validator):
        raise ValueError("its validator is none")
    return note


def _validator(answer: Answer) -> str:
    """Return what names this version of the file.

    A strong ETag, or its date (RFC 9110, section 8.8); "" for neither.
    """
    found = (answer.headers.get(name, "") for name in ("ETag", "Last-Modified"))
    return next((value for value in found if _VALIDATOR.fullmatch(value)), "")


def _start_of(answer: Answer, part: Path, have: int) -> int:
    """Return the offset that the answer's body starts at, -1 when the file is complete already.

    Raises Again for what another try may cure, Unavailable for the rest.
    """
    status = answer.status
    ranged = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if status == 200:
        return 0
    if status == 206 and have and ranged and ranged[1] == str(have):
        return have
    if status == 416 and have and ranged and ranged[2] == str(have):
        return -1
    if status in (206, 416) and have:
        discard(part)
        raise Again("the server can't go on where it broke off")
    why = f"HTTP status {status} {answer.reason}".rstrip()
    if status >= 500 or status in (408, 425, 429):
        raise Again(why, retry_after=answer.headers.get("Retry-After", ""))
    raise Unavailable(why)


def _receive(answer: Answer, part: Path, have: int, total: int, shown: Any) -> None:
    """Append the body to `part` as it comes, and bring it to the disk.

    It begins at the file's start when `have` is 0.
    """
    with _open(part, have) as file:
        while chunk := answer.read(_CHUNK):
            have += len(chunk)
            if have > (total or LIMIT):
                discard(part)
                raise Unavailable(f"it sends more than {terminal.human(total or LIMIT)}")
            with written(part, total):
                file.write(chunk)
            shown.update(len(chunk))
        with written(part, total):
            os.fsync(file.fileno())
    if total and have < total:
        raise Again(f"the line broke after {have} of {total} bytes")


def _open(part: Path, have: int) -> IO[bytes]:
    """Open `part` to add to its `have` bytes; for 0 it must not be there yet."""
    with files.explained(part):
        if have:
            fd = files.open_regular(part, os.O_WRONLY | os.O_APPEND)
        else:
            fd = files.open_regular(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        file = open(fd, "ab" if have else "wb", buffering=0)  # noqa: SIM115
    info = os.fstat(fd)
    if (info.st_size, info.st_uid, info.st_nlink) == (have, os.geteuid(), 1):
        return file
    file.close()  # it was exchanged since begun() looked
    raise Again(f"{part} was changed by somebody else")
