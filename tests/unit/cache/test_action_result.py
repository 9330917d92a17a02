from __future__ import annotations

import random

import cacheservers
import pytest

from tasks.cache.action_result import MOST, ActionResult, OutputFile, decode, encode

RESULT = ActionResult(
    [
        OutputFile("0", "ab" * 32, 300),
        OutputFile("a/ü", "0" * 64, 0, True),
        OutputFile("2", "f" * 64, 1 << 40),
    ],
    bytes(range(256)) * 3,
)


def test_protobuf_reads_what_is_written_and_writes_what_is_read() -> None:
    kind = cacheservers.messages()
    seen = kind()
    seen.ParseFromString(encode(RESULT))
    assert seen.stdout_raw == RESULT.stdout
    assert [
        (file.path, file.digest.hash, file.digest.size_bytes, file.is_executable)
        for file in seen.output_files
    ] == list(RESULT.files)
    seen.exit_code = -1  # ten bytes
    seen.execution_metadata.worker = "127.0.0.1:1234"
    assert decode(seen.SerializeToString()) == RESULT
    assert seen.SerializeToString() != encode(RESULT)


def test_what_is_written_can_be_read() -> None:
    assert decode(encode(RESULT)) == RESULT
    assert decode(b"") == ActionResult([], b"")


@pytest.mark.parametrize(
    "data",
    [
        b"\x12",  # a field and no length
        b"\x12\x05ab",  # cut off
        b"\x13",  # a group
        bytes(10),  # a field without a number
        b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # a number without an end
        b"\x28\x01",  # stdout is a number
        b"\x12\x02\x08\x01",  # a path is a number
        b"\x12\x03\x0a\x01\xff",  # a path that is no UTF-8
        b"\x12\x00" * (MOST + 1),
    ],
)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode(data)


def test_fields_that_are_not_known_are_passed_over() -> None:
    more = b"\x09" + bytes(8) + b"\x0d" + bytes(4) + b"\x78\x01" + b"\x7a\x02ab"
    assert decode(more + encode(RESULT) + more) == RESULT


def test_whatever_it_is_it_is_read_or_refused() -> None:
    dice = random.Random(1)
    taken = 0
    for _ in range(3000):
        data = bytearray(encode(RESULT))
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(data))
            data[at : at + dice.randrange(3)] = dice.randbytes(dice.randrange(3))
        try:
            decode(bytes(data))
            taken += 1
        except ValueError:
            pass
    assert 0 < taken < 3000
