"""Reading a compressed tar from its first byte to its last: decompressed beside the reader, every damage noticed."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tasks.kit import run
from tasks.kit.errors import PiggyError

if TYPE_CHECKING:
    import tarfile

_CHUNK = 1 << 18
_AHEAD = 16  # chunks: 4 MB
_BLOCK = 512  # of a tar: POSIX.1-1988, "ustar Interchange Format"


def damaged(archive: Path, why: object) -> PiggyError:
    """Return the error for an archive that can't be read to its end."""
    return PiggyError(f"{archive} is damaged: {why}", "remove it; 'doit fetch' gets it again")


@contextlib.contextmanager
def members(archive: Path, bar: bool = False) -> Iterator[Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]]:
    """Give an iterator over the members of a .tar, .tar.gz, .tar.bz2, .tar.xz or .tar.zst (told apart by content).

    Each member's data must be read (`TarFile.extractfile`) before the next member is taken. bar: show a progress bar.
    The iterator raises PiggyError when the archive is truncated or corrupt anywhere, also where tarfile would take
    a broken header for the end.
    """
    from tqdm import tqdm

    with contextlib.ExitStack() as stack:
        try:
            raw = stack.enter_context(archive.open("rb", buffering=0))
        except OSError as error:
            raise PiggyError(f"can't read {archive}: {error.strerror}") from error
        ahead = _Ahead(archive, raw)
        stack.callback(ahead.stop)
        shown = stack.enter_context(tqdm(total=archive.stat().st_size, desc=f"unpack {archive.name}", unit="B",
                                         unit_scale=True, disable=not bar, leave=False))
        # zstd reads from the same open file, so its offset is the progress with every decompressor
        yield _each(archive, ahead, lambda: shown.update(os.lseek(raw.fileno(), 0, os.SEEK_CUR) - shown.n))


def _each(archive: Path, ahead: _Ahead, on_member: Callable[[], object]
          ) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    import tarfile

    try:
        tar = tarfile.open(fileobj=ahead, mode="r|")  # type: ignore[call-overload]  # noqa: SIM115
        while (member := tar.next()) is not None:
            tar.members.clear()  # tarfile keeps all: 80,000 of them in a kernel
            yield tar, member
            on_member()
    except PiggyError:
        raise
    except Exception as error:  # malformed headers make tarfile raise nearly anything
        raise damaged(archive, error) from error
    if ahead.block(tar.offset) != bytes(_BLOCK):
        raise damaged(archive, f"no tar header and no end of archive at byte {tar.offset} of its content")
    while ahead.read(_CHUNK):  # the padding, and the check sums that compressors put at the end
        pass


class _Ahead:
    """A file object for tarfile: decompressed bytes, which a thread reads ahead (the decompressors release the GIL)."""

    def __init__(self, archive: Path, raw: IO[bytes]) -> None:
        self._queue: queue.Queue[bytes | Exception] = queue.Queue(_AHEAD)
        self._chunk, self._used, self._position, self._last = b"", 0, 0, b""
        self._stopped = False
        self._thread = threading.Thread(target=self._fill, args=(archive, raw), daemon=True)
        self._thread.start()

    def _fill(self, archive: Path, raw: IO[bytes]) -> None:
        try:
            for chunk in _decompressed(raw):
                self._queue.put(chunk)
                if self._stopped:
                    return
            self._queue.put(b"")
        except PiggyError as error:
            self._queue.put(error)
        except Exception as error:  # each decompressor has its own: LZMAError, zlib.error, EOFError, OSError
            self._queue.put(damaged(archive, error))

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end."""
        parts, wanted = [], size
        while wanted:
            if self._used == len(self._chunk):
                item = self._queue.get()
                if isinstance(item, Exception):
                    self._queue.put(item)
                    raise item
                if not item:
                    self._queue.put(item)  # stays at the end, however often it is asked
                    break
                self._chunk, self._used = item, 0
            part = self._chunk[self._used:self._used + wanted]
            self._used += len(part)
            wanted -= len(part)
            parts.append(part)
        self._last = b"".join(parts)
        self._position += len(self._last)
        return self._last

    def block(self, offset: int) -> bytes:
        """Return the tar block at `offset`, if it was in the last read; else b""."""
        at = offset - (self._position - len(self._last))
        return self._last[at:at + _BLOCK] if at >= 0 else b""

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._queue.get(timeout=0.05)
        self._thread.join()


def _decompressed(raw: IO[bytes]) -> Iterator[bytes]:
    """Yield the decompressed content of an open file, in chunks; raises whatever its decompressor raises."""
    import bz2
    import gzip
    import lzma

    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        with run.child(["zstd", "-dcq"], stdin=raw, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            while chunk := process.stdout.read(_CHUNK):
                yield chunk
            if process.wait():
                raise EOFError(process.stderr.read().decode(errors="replace").strip())
        return
    stream: IO[bytes] = raw
    if magic.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=raw)  # type: ignore[assignment]
    elif magic.startswith(b"BZh"):
        stream = bz2.BZ2File(raw)
    elif magic.startswith(b"\xfd7zXZ\0"):
        stream = lzma.LZMAFile(raw)  # noqa: SIM115
    while chunk := stream.read(_CHUNK):
        yield chunk
