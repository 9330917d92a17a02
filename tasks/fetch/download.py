"""Download of one file by HTTP, with size limit, resume, retries and hash check.

urllib3's Retry decides how often and how soon to retry. The loop below counts the tries, not the
adapter of requests: the adapter sees no body that breaks off, so two counters would multiply; and
before a retry it reads the body of a 503 to its end, which may never come
(`HTTPResponse.drain_conn`).

The bytes go to FILE.part. FILE.part.from records their address and the version of the file, so that
a later call, also after kill -9, resumes only the same version (RFC 9110, section 13.1.5,
If-Range). If the parts are of different versions in spite of that, the hash differs, and the file
is fetched once more from the start. Others may be able to write to the folder, too: only regular
files of our own are resumed.
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
from tasks.system.pattern import pattern

if TYPE_CHECKING:
    from urllib3 import Retry

LIMIT = 1 << 30  # bytes: far above any source, far below a disk
MAX_TRIES = 30  # in all, on a line that breaks again and again
TRIES = 5  # in a row without progress
CONNECT_TRIES = 2  # in a row without an answer
PROGRESS = 1 << 20  # bytes after which a try counts as progress
LONGEST_WAIT = 30.0  # seconds between two tries
_CHUNK = 1 << 16
# A strong entity tag, or a date (RFC 9110, sections 8.8.3 and 5.6.7); nothing else is sent back to
# a server.
_VALIDATOR = pattern(
    r'"[!#-~]{0,200}"|[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT', re.ASCII
)


class _Note(msgspec.Struct, frozen=True):
    """The content of FILE.part.from.

    Attributes:
        url: The address, without its password.
        validator: The ETag or date of that version of the file; "" for none.
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
    """Fetch `url` into the file `part`, resume an earlier download, and check the sha256.

    Args:
        url: The http or https address.
        part: The file to write. It stays after a failure, to be resumed; it is removed if its hash
            is wrong, or the disk is full.
        sha256: The hash of the complete file.
        bar: Whether to show progress on standard error.
        sleep: Waits a number of seconds between two tries.

    Raises:
        Unavailable: This address can't give the file.
        PiggyError: `part` can't be written.
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
            digest = files.sha256_of(part)
            if digest == sha256:
                side_of(part).unlink(missing_ok=True)
                return
            discard(part)
            if not pieced:
                raise Unavailable(f"wrong content: its sha256 is {digest}, and should be {sha256}")
            pieced = False  # the parts may be of different versions: once more, in one piece


def _patience(total: int) -> Retry:
    """Return a policy of `total` retries: at once, then after about 2, 4, 8 ... seconds."""
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
    """Return the policy after one more failure.

    Raises:
        Unavailable: No try is left.
    """
    from urllib3 import exceptions

    kind = exceptions.ConnectTimeoutError if why.connecting else exceptions.ProtocolError
    try:
        return retry.increment("GET", url, error=kind(str(why)))
    except exceptions.MaxRetryError:
        raise Unavailable(f"{why} ({MAX_TRIES - int(retry.total or 0)} tries)") from why


def _asked(retry: Retry, header: str) -> float:
    """Return the seconds to wait by a Retry-After header, LONGEST_WAIT at most; 0 if it is invalid.

    Source: RFC 9110, section 10.2.3.
    """
    from urllib3.exceptions import InvalidHeader

    try:
        return min(retry.parse_retry_after(header), LONGEST_WAIT) if header else 0
    except (InvalidHeader, ValueError, OverflowError):  # a number or a date that is too long
        return 0


def size_of(path: Path) -> int:
    """Return a regular file's size in bytes, 0 for anything else (a link, a missing file)."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return 0
    return info.st_size if stat.S_ISREG(info.st_mode) else 0


def begun(part: Path) -> int:
    """Return how many bytes of a partial file can be resumed, and remove an unsafe file.

    Only a regular file of our own with a single name is resumed. Anything else (a link, a pipe,
    another user's file) is removed and counts as 0 bytes.

    Raises:
        PiggyError: It is a folder.
    """
    with contextlib.suppress(FileNotFoundError):
        info = part.lstat()
        if not (stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid() and info.st_nlink == 1):
            discard(part)
    return size_of(part)


def side_of(part: Path) -> Path:
    """Return the path of FILE.part.from for FILE.part."""
    return part.with_name(part.name + ".from")


def discard(part: Path) -> None:
    """Remove a partial file and its note.

    Raises:
        PiggyError: One of them is a folder.
    """
    for path in (part, side_of(part)):
        if path.is_dir() and not path.is_symlink():
            raise PiggyError(f"{path} is a folder, and a file belongs there", "move it away")
        with files.explained(path):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def written(part: Path, needed: int) -> Iterator[None]:
    """Turn an OSError of the body, which writes `part`, into a PiggyError.

    If the disk is full, `part` is removed.

    Args:
        part: The file being written.
        needed: Its size in bytes; 0 if that is not known.
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
    """Request the rest of the file and append it to `part`.

    Raises:
        Again: The download failed or broke off; a retry may help.
        Unavailable: This address can't give the file.
        PiggyError: `part` can't be written.
    """
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
    """Return the request's headers.

    The content must not be encoded (Accept-Encoding: identity), as the hash is that of the file. A
    partial file whose note can't be read is removed, with the note.
    """
    headers = {"Accept-Encoding": "identity", "User-Agent": "piggyback"}
    have = begun(part)
    if have:
        try:
            note = _noted(part)
        # MsgspecError and UnicodeDecodeError are ValueErrors.
        except (OSError, ValueError, RecursionError):
            discard(part)
            return headers
        headers["Range"] = f"bytes={have}-"
        if note and note.validator and note.url == address.shown(url):
            headers["If-Range"] = note.validator
    return headers


def _noted(part: Path) -> _Note | None:
    """Return the note beside a partial file; None if there is none.

    Raises:
        OSError: It can't be read.
        ValueError: It has another form than we write.
    """
    try:
        note = msgspec.json.decode(files.read_regular(side_of(part), 1 << 16), type=_Note)
    except FileNotFoundError:
        return None
    if note.validator and not _VALIDATOR.fullmatch(note.validator):
        raise ValueError("its validator is none")
    return note


def _validator(answer: Answer) -> str:
    """Return the strong ETag or date of the file's version (RFC 9110, section 8.8); "" for none."""
    values = (answer.headers.get(name, "") for name in ("ETag", "Last-Modified"))
    return next((value for value in values if _VALIDATOR.fullmatch(value)), "")


def _start_of(answer: Answer, part: Path, have: int) -> int:
    """Return the offset in the file at which the answer's body starts.

    Args:
        answer: The answer.
        part: The partial file.
        have: Its size in bytes; 0 if the whole file was requested.

    Returns:
        The offset, or -1 if the file is complete already.

    Raises:
        Again: A retry may help.
        Unavailable: Any other answer.
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
    """Append the body to `part` and sync it to the disk.

    Args:
        answer: The answer.
        part: The partial file.
        have: Its present size in bytes; 0 if it does not exist yet.
        total: The size of the complete file; 0 if the server does not tell.
        shown: The progress bar.

    Raises:
        Again: The connection broke.
        Unavailable: The body is too long.
        PiggyError: `part` can't be written.
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
    """Open `part` for appending to its `have` bytes; if these are 0, it must not exist yet.

    Raises:
        Again: Another process changed it.
    """
    with files.explained(part):
        if have:
            fd = files.open_regular(part, os.O_WRONLY | os.O_APPEND)
        else:
            fd = files.open_regular(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        file = open(fd, "ab" if have else "wb", buffering=0)  # noqa: SIM115
    info = os.fstat(fd)
    if (info.st_size, info.st_uid, info.st_nlink) == (have, os.geteuid(), 1):
        return file
    file.close()  # it was replaced after begun()
    raise Again(f"{part} was changed by somebody else")
