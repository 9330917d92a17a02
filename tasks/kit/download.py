"""Getting one file by HTTP: bounded, resumed where it broke off, tried again where that can help, its hash checked.

The bytes go to FILE.part; beside it FILE.part.from says where they came from, so that a later call, also after kill -9,
goes on only with the same version of the file (RFC 9110, section 13.1.5, If-Range). What was pieced together wrongly in
spite of that is found by the hash, and fetched once more from the start.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tasks.kit import disk, fs
from tasks.kit.errors import PiggyError

if TYPE_CHECKING:
    import requests

LIMIT = 1 << 30  # bytes: far above any source, far below a disk
TRIES = 5  # in a row without progress
MAX_TRIES = 30  # in all, on a line that breaks again and again
CONNECT_TRIES = 2  # where nobody even answers
PROGRESS = 1 << 20  # bytes that make a try a useful one
CONNECT_SECONDS, READ_SECONDS = 10, 30
STALL_SECONDS, STALL_BYTES = 30, 30_000  # slower than that is as good as dead
LONGEST_WAIT = 30.0  # seconds between two tries
_CHUNK = 1 << 16
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


class Unavailable(Exception):
    """Why one origin can't give the file; the next one may."""


class _Again(Exception):
    """A failure that another try may cure; `wait`: seconds that the server asked for; `tries`: how many at most."""

    def __init__(self, why: object, wait: float = 0, tries: int = TRIES) -> None:
        super().__init__(why)
        self.wait, self.tries = wait, tries


def download(url: str, part: Path, sha256: str, *, bar: bool = False, sleep: Callable[[float], None] = time.sleep
             ) -> None:
    """Fetch `url` into the file `part`, going on with what is there, until its content has that sha256.

    bar: show progress on standard error; sleep: waits that many seconds between two tries.
    Raises Unavailable when this address can't give the file (`part` stays for going on, unless its hash was wrong), and
    PiggyError when it can't be written here (no space: `part` is removed).
    """
    import requests
    from tqdm import tqdm

    pieced = size_of(part) > 0
    tries = total = 0
    with requests.Session() as session, tqdm(desc=part.name.removesuffix(".part"), unit="B", unit_scale=True,
                                             disable=not bar, leave=False) as shown:
        while True:
            before = size_of(part)
            try:
                _one_try(session, url, part, shown)
            except _Again as why:
                pieced = True
                total += 1
                tries = 1 if size_of(part) - before >= PROGRESS else tries + 1
                if tries >= why.tries or total >= MAX_TRIES:
                    raise Unavailable(f"{why} ({total} tries)") from why
                sleep(why.wait or min(LONGEST_WAIT, 2 ** (tries - 1)) * random.uniform(0.5, 1))
                continue
            found = disk.sha256_of(part)
            if found == sha256:
                side_of(part).unlink(missing_ok=True)
                return
            discard(part)
            if not pieced:
                raise Unavailable(f"wrong content: its sha256 is {found}, and should be {sha256}")
            pieced = False  # what was pieced together may be at fault: once more, in one piece


def size_of(path: Path) -> int:
    """Return a file's size in bytes, 0 for none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def side_of(part: Path) -> Path:
    """Return the path of the note on where `part` came from."""
    return part.with_name(part.name + ".from")


def discard(part: Path) -> None:
    """Remove a partial file and its note."""
    with disk.explained(part):
        part.unlink(missing_ok=True)
        side_of(part).unlink(missing_ok=True)


@contextlib.contextmanager
def written(part: Path, needed: int) -> Iterator[None]:
    """Explain what the disk refuses while `part` is written, `needed` bytes in all; a full one gets its space back."""
    try:
        with disk.explained(part, needed):
            yield
    except PiggyError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in disk.NO_SPACE:
            discard(part)
            raise disk.no_space(part, needed) from error.__cause__
        raise


def _one_try(session: requests.Session, url: str, part: Path, shown: Any) -> None:
    """Ask for the rest of the file, and add what comes to `part`; returns when all of it has come."""
    have = size_of(part)
    with _said_plainly(url), session.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS),
                                         headers=_headers(url, part, have)) as response:
        have = _start_of(response, part, have)
        if have < 0:
            return
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isascii() and length.isdigit() else 0
        if total > LIMIT:
            raise Unavailable(f"it says the file has {disk.human(total)}, and no source is that big")
        if total - have > disk.free(part.parent):
            discard(part)
            raise disk.no_space(part, total)
        if not have:
            note = {"url": url, "validator": _validator(response)}
            with disk.explained(part):
                fs.write_whole(side_of(part), json.dumps(note) + "\n")
        shown.total, shown.n = total or None, have
        _receive(response, part, have, total, shown)


def _headers(url: str, part: Path, have: int) -> dict[str, str]:
    """Return the request's headers. No Content-Encoding: the hash is that of the file as it is."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "piggyback"}
    if have:
        headers["Range"] = f"bytes={have}-"
        with contextlib.suppress(OSError, ValueError, AttributeError):
            note = json.loads(side_of(part).read_bytes())
            if note.get("url") == url and isinstance(note.get("validator"), str) and note["validator"]:
                headers["If-Range"] = note["validator"]
    return headers


def _validator(response: requests.Response) -> str:
    """Return what names this version of the file: a strong ETag, or its date (RFC 9110, section 8.8)."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _start_of(response: requests.Response, part: Path, have: int) -> int:
    """Return the offset that the answer's body starts at, -1 when the file is complete already.

    Raises _Again for what another try may cure, Unavailable for the rest.
    """
    status = response.status_code
    ranged = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if status == 200:
        return 0
    if status == 206 and have and ranged and ranged[1] == str(have):
        return have
    if status == 416 and have and ranged and ranged[2] == str(have):
        return -1
    if status in (206, 416) and have:
        discard(part)
        raise _Again("the server can't go on where it broke off")
    why = f"HTTP status {status} {response.reason or ''}".rstrip()
    if status >= 500 or status in (408, 425, 429):
        asked = response.headers.get("Retry-After", "")
        raise _Again(why, min(float(asked), LONGEST_WAIT) if asked.isascii() and asked.isdigit() else 0)
    raise Unavailable(why)


def _receive(response: requests.Response, part: Path, have: int, total: int, shown: Any) -> None:
    """Append the body to `part` (from its start when `have` is 0) as it comes, and bring it to the disk."""
    read = getattr(response.raw, "read1", response.raw.read)  # read1 returns what has come: slow lines are noticed
    since, then = time.monotonic(), have
    with _open(part, "ab" if have else "wb") as file:
        while chunk := read(_CHUNK, decode_content=False):
            have += len(chunk)
            if have > (total or LIMIT):
                discard(part)
                raise Unavailable(f"it sends more than {disk.human(total or LIMIT)}")
            with written(part, total):
                file.write(chunk)
            shown.update(len(chunk))
            if time.monotonic() - since > STALL_SECONDS:
                if have - then < STALL_BYTES:
                    raise _Again(f"only {have - then} bytes in {STALL_SECONDS} seconds", tries=CONNECT_TRIES)
                since, then = time.monotonic(), have
        with written(part, total):
            os.fsync(file.fileno())
    if total and have < total:
        raise _Again(f"the line broke after {have} of {total} bytes")


def _open(part: Path, mode: str) -> IO[bytes]:
    with disk.explained(part):
        return open(part, mode, buffering=0)


@contextlib.contextmanager
def _said_plainly(url: str) -> Iterator[None]:
    """Turn whatever requests, urllib3 and sockets raise into _Again or Unavailable."""
    import http.client

    import requests
    import urllib3

    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError,
            ValueError) as error:
        host = "/".join(url.split("/", 3)[:3])
        for cause in _causes(error):
            if isinstance(cause, socket.gaierror):
                raise Unavailable(f"the host name of {host} (or of its proxy) does not resolve: no network?") from error
            if isinstance(cause, ConnectionRefusedError):
                raise Unavailable(f"{host} refuses the connection") from error
            if isinstance(cause, OSError) and cause.errno in _UNREACHABLE:
                raise Unavailable(f"{host} can't be reached: {cause.strerror}") from error
        if isinstance(error, requests.exceptions.ConnectTimeout):
            raise _Again(f"{host} does not answer", tries=CONNECT_TRIES) from error
        if isinstance(error, requests.exceptions.SSLError | requests.exceptions.ProxyError | ValueError
                      | requests.TooManyRedirects):  # ValueError: not an http(s) address, also after a redirect
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
            raise _Again(f"{host} is silent for {READ_SECONDS} seconds") from error
        raise _Again(f"the connection broke: {error}") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it was raised from; urllib3 keeps some in `reason` and in the arguments."""
    todo, seen = [error], set()
    while todo:
        one = todo.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += [other for other in (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
                     if isinstance(other, BaseException)]
