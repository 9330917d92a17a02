"""Decompression of archives in a thread, with limits for memory and decompressed size."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from tasks.system import process
from tasks.system.errors import PiggyError
from tasks.system.terminal import printable

CHUNK = 1 << 18
XZ_MEMORY = 1 << 29  # bytes for one decompressor; xz -9 needs 65 MiB to decompress (xz(1))
_AHEAD = 16  # chunks: 4 MB


class Damaged(PiggyError):
    """An archive that can't be read to its end."""


def damaged(archive: Path, why: object) -> Damaged:
    """Return the error for an archive that can't be read to its end.

    Args:
        archive: The file.
        why: The cause, an exception or a sentence.
    """
    if isinstance(why, MemoryError):
        why = "there is not enough memory to decompress it"
    return Damaged(
        f"{archive} is damaged: {printable(str(why)) or type(why).__name__}",
        "remove it; 'doit fetch' gets it again",
    )


class Ahead:
    """A reader of an archive's content, decompressed ahead by a thread.

    The decompressors release the GIL.

    Args:
        archive: The file that messages name.
        chunks: The decompressed content.
        limit: Greatest size of the content in bytes.
    """

    def __init__(self, archive: Path, chunks: Iterable[bytes], limit: int) -> None:
        self.position = 0  # in the content
        self._archive, self._limit = archive, limit
        self._queue: queue.Queue[bytes | PiggyError] = queue.Queue(_AHEAD)
        self._chunk, self._used = b"", 0
        self._stopped = False
        self._thread = threading.Thread(target=self._fill, args=[chunks], daemon=True)
        self._thread.start()

    def damaged(self, why: object) -> Damaged:
        """Return the error for this archive."""
        return damaged(self._archive, why)

    def _fill(self, chunks: Iterable[bytes]) -> None:
        left = self._limit
        try:
            for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    raise self.damaged(
                        f"it unpacks to more than {self._limit:,} bytes, and no source is that big"
                    )
                self._queue.put(chunk)
                if self._stopped:
                    return
            self._queue.put(b"")
        except PiggyError as error:
            self._queue.put(error)
        except Exception as error:
            # each decompressor has its own: LZMAError, zlib.error, EOFError, OSError, MemoryError
            self._queue.put(self.damaged(error))

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end.

        Raises:
            Damaged: The archive can't be decompressed, or its content exceeds the limit.
        """
        parts, missing = [], size
        while missing:
            if self._used == len(self._chunk):
                item = self._queue.get()
                if isinstance(item, PiggyError):
                    self._queue.put(item)
                    raise item
                if not item:
                    self._queue.put(item)  # for further reads at the end
                    break
                self._chunk, self._used = item, 0
            part = self._chunk[self._used : self._used + missing]
            self._used += len(part)
            missing -= len(part)
            parts.append(part)
        self.position += size - missing
        return b"".join(parts)

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._queue.get(timeout=0.05)
        self._thread.join()


def decompressed(raw: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of an open file (zstd, xz, gzip, bzip2 or plain) in chunks.

    Raises:
        Exception: Any that its decompressor raises.
    """
    import bz2
    import gzip

    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        with process.child(
            ["zstd", "-dcq"], stdin=raw, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as zstd:
            assert zstd.stdout is not None
            assert zstd.stderr is not None
            while chunk := zstd.stdout.read(CHUNK):
                yield chunk
            if zstd.wait():
                raise EOFError(zstd.stderr.read(4096).decode(errors="replace").strip())
        return
    if magic.startswith(b"\xfd7zXZ\0"):
        yield from _from_xz(raw)
        return
    stream: IO[bytes] = raw
    if magic.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=raw)  # type: ignore[assignment]
    elif magic.startswith(b"BZh"):
        stream = bz2.BZ2File(raw)
    while chunk := stream.read(CHUNK):
        yield chunk


def _from_xz(raw: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of a .xz file: streams with zeros between them (The .xz File Format, 2.2).

    lzma.LZMAFile sets no limit to the memory that a header asks for, up to 4 GiB.
    """
    import lzma

    data = raw.read(CHUNK)
    while data:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY)
        while not stream.eof:
            if stream.needs_input and not data:
                raise EOFError("its compressed data end too early")
            chunk = stream.decompress(data, CHUNK)
            data = raw.read(CHUNK) if stream.needs_input and not stream.eof else b""
            if chunk:
                yield chunk
        data = stream.unused_data.lstrip(b"\0")
        while not data and (more := raw.read(CHUNK)):
            data = more.lstrip(b"\0")
