"""Where the bytes are, of the PC's real kernel; held against the kernel's own bloat-o-meter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.real.conftest import Checkout

pytestmark = pytest.mark.real


def sizes(pc: Checkout, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pc.doit("size", "--json", *words))
    return found


def whole(board: Checkout, booted: str, raw: str = "Image") -> dict[str, Any]:
    """What `doit size --json` says, after a check that each byte is on a line."""
    found = sizes(board)
    assert found["notes"] == []
    for kind, name in (("raw", raw), *([("booted", booted)] if booted != raw else [])):
        rows = found[kind]["rows"]
        assert found[kind]["name"] == name
        assert sum(row["size"] for row in rows) == (board.images / name).stat().st_size
        assert all(
            row["offset"] + row["size"] == after["offset"]
            for row, after in zip(rows, rows[1:], strict=False)
        )
        assert not [row for row in rows if row["object"] in ("(other)", "(not known)")]
    rows = found["raw"]["rows"]
    assert next(row for row in rows if row["name"] == "panic")["object"] == "kernel/panic.o"
    for name in {"busybox", "rootfs"} & found.keys():
        total = found["files"][name]
        assert sum(row["size"] for row in found[name]["rows"]) == total
    return found


def test_each_byte_of_the_images_is_on_a_line(pc: Checkout) -> None:
    found = whole(pc, "bzImage")
    assert {"busybox", "applets", "rootfs"} <= found.keys()
    assert found["files"]["bzImage"] <= 1_200_000  # as docs/size.md has it
    raw = found["raw"]["rows"]
    piggy = (pc.images / "piggy.gz").stat().st_size
    assert sum(row["about"] for row in raw) == piggy
    assert sum(one["own"] for one in found["symbols"]) == (pc.images / "Image").stat().st_size
    own = {one["symbol"]: one for one in found["symbols"]}
    assert own["EXT2_FS"]["own"] > 20_000
    assert own["NET"]["all"] > own["NET"]["own"] + own["INET"]["own"]
    assert "  panic.o" in pc.doit("size", "kernel", "--all")
    said = pc.doit("size", "busybox", "applets", "rootfs", "--against=pc")
    assert said.count("up/down: 0/0 (0)") == 3


@pytest.mark.long  # tests/graph/test_size.py has the same for the fake kernel
def test_a_flipped_symbol_is_named_as_bloat_o_meter_does(pc: Checkout, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in ("vmlinux", "config"):
        (old / name).write_bytes((pc.images / name).read_bytes())
    pc.doit("size")  # so that the objects of the old one are known
    (tmp_path / "flip.config").write_text("# CONFIG_PACKET is not set\n")
    flip = f"fragments={tmp_path / 'flip.config'}"
    try:
        pc.doit(flip, "bzImage")
        said = pc.doit(flip, "size", "--against", str(old)).splitlines()
        begin, end = (
            next(number for number, line in enumerate(said) if line.startswith(word))
            for word in ("add/remove", "Total")
        )
        ours = [line[:64].rstrip() for line in said[begin:end]]
        theirs = subprocess.run(
            [
                sys.executable,
                str(pc.kernel / "scripts" / "bloat-o-meter"),
                "-p",
                "i686-linux-gnu-",
                str(old / "vmlinux"),
                str(pc.images / "vmlinux"),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert ours == theirs[:-1]
        lines = {line.split()[0]: line.split() for line in said if line.strip()}
        assert lines["packet_sendmsg"][-1] == "net/packet/af_packet.o"
        assert int(lines["CONFIG_PACKET"][3]) < -20_000
        assert "  CONFIG_PACKET: y -> n" in said
        size = (pc.images / "bzImage").stat().st_size
        pc.doit(flip, "size", f"--limit={size}")
        pc.doit(flip, "size", f"--limit={size - 1}", status=1)
    finally:
        pc.doit("bzImage")
