"""The ActionResult of Bazel's remote caches: the part of it that is needed, as protobuf.

Source: build/bazel/remote/execution/v2/remote_execution.proto of bazelbuild/remote-apis, messages
ActionResult, OutputFile and Digest; and https://protobuf.dev/programming-guides/encoding/ for the
form. Three messages with eight fields do not pay for a protobuf library with generated code, which
takes longer to load than a run with nothing to do lasts; the tests read what is written here with
that library.

A server may add fields (bazel-remote adds which worker wrote an entry): what is not known is passed
over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

LONGEST = 4 << 20  # bytes of an ActionResult that are read
MOST = 10_000  # files of one ActionResult
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_FILES, _STDOUT = 2, 5  # fields of ActionResult
_PATH, _DIGEST, _EXECUTABLE = 1, 2, 4  # fields of OutputFile
_HASH, _SIZE = 1, 2  # fields of Digest


class OutputFile(NamedTuple):
    """A file of an ActionResult: its name, and the SHA256 and size in bytes of its content."""

    path: str
    sha256: str
    size: int
    executable: bool = False


class ActionResult(NamedTuple):
    """The files that an action made, and its standard output."""

    files: Sequence[OutputFile]
    stdout: bytes


def encode(result: ActionResult) -> bytes:
    """Return an ActionResult as protobuf."""
    said = b""
    for file in result.files:
        digest = _bytes(_HASH, file.sha256.encode())
        digest += _number(_SIZE, file.size) if file.size else b""
        entry = _bytes(_PATH, file.path.encode()) + _bytes(_DIGEST, digest)
        entry += _number(_EXECUTABLE, 1) if file.executable else b""
        said += _bytes(_FILES, entry)
    return said + _bytes(_STDOUT, result.stdout)


def decode(data: bytes) -> ActionResult:
    """Return the ActionResult that protobuf holds.

    Raises:
        ValueError: It holds none.
    """
    files, stdout = [], b""
    for field, value in _fields(data):
        if field == _FILES:
            files.append(_file(_content(value)))
        elif field == _STDOUT:
            stdout = _content(value)
        if len(files) > MOST:
            raise ValueError(f"more than {MOST} files")
    return ActionResult(files, stdout)


def _file(data: bytes) -> OutputFile:
    path, sha256, size, executable = "", "", 0, False
    for field, value in _fields(data):
        if field == _PATH:
            path = _content(value).decode()
        elif field == _DIGEST:
            for part, inner in _fields(_content(value)):
                if part == _HASH:
                    sha256 = _content(inner).decode()
                elif part == _SIZE:
                    size = _whole(inner)
        elif field == _EXECUTABLE:
            executable = bool(_whole(value))
    return OutputFile(path, sha256, size, executable)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield each field's number and value: an int, or bytes of what has a length.

    Raises:
        ValueError: It is no protobuf message, or one with groups.
    """
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, kind = tag >> 3, tag & 7
        if not field:
            raise ValueError("a field without a number")
        if kind == _VARINT:
            number, at = _varint(data, at)
            yield field, number
            continue
        if kind == _LEN:
            length, at = _varint(data, at)
        elif kind in (_I64, _I32):
            length = 8 if kind == _I64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if length > len(data) - at:
            raise ValueError("it is cut off")
        yield field, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it is cut off")
        number |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return number, at
    raise ValueError("a number of more than 10 bytes")


def _content(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where there should be bytes")
    return value


def _whole(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes where there should be a number")
    return value


def _tag(field: int, kind: int) -> bytes:
    return _as_varint(field << 3 | kind)


def _as_varint(number: int) -> bytes:
    said = bytearray()
    while number > 0x7F:
        said.append(number & 0x7F | 0x80)
        number >>= 7
    said.append(number)
    return bytes(said)


def _number(field: int, number: int) -> bytes:
    return _tag(field, _VARINT) + _as_varint(number)


def _bytes(field: int, content: bytes) -> bytes:
    return _tag(field, _LEN) + _as_varint(len(content)) + content
