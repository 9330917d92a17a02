"""`doit price` on the fake kernel: trials in slots, rows in the store, a table."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from playground import FAKE, Playground, finish
from test_size import state

HOW = ("boot=initramfs", "accel=tcg")  # as in test_matrix.py
PATCH = """\
--- a/kernel/panic.c
+++ b/kernel/panic.c
@@ -7,6 +7,7 @@ int panic_timeout = PANIC_TIMEOUT;
 void panic(const char *why)
 {{
 \tprintk(why);
+\tstatic int more[{}] __attribute__((used)) = {{1}};
 \tfor (;;)
 \t\tpanic_timeout--;
 }}
"""


@pytest.fixture
def path(tmp_path: Path, built: Playground) -> str:
    """A PATH with the QEMU that the fake machine names; and a store."""
    program = tmp_path / "fake-qemu"
    program.write_text((FAKE / "qemu").read_text().replace("@PYTHON@", sys.executable))
    program.chmod(0o755)
    built.store_size = "1G"
    built.limit = 300.0
    return f"{tmp_path}:{built.environ()['PATH']}"


def price(play: Playground, path: str, *words: str) -> dict[str, Any]:
    """What `doit price --json` says, by symbol."""
    found = json.loads(play.doit(*HOW, "price", "--json", *words, PATH=path).text)
    return {**found, "symbols": {one["symbol"]: one for one in found["symbols"]}}


def runs(play: Playground, slot: int = 1) -> int:
    """How many tasks ran in a slot so far."""
    history = play.here / "trials" / f"slot-{slot}" / "fake" / "logs" / "history.jsonl"
    return len(history.read_text().splitlines())


def test_what_symbols_cost_is_measured_elsewhere_once(built: Playground, path: str) -> None:
    before, images = state(built.obj), built.digests()
    found = price(built, path, "CONFIG_BLOCK", "EXTRA", "BROKEN_CODE", "-n", "2")
    assert (state(built.obj), built.digests()) == (before, images)
    base, block, extra, broken = (
        found["base"],
        *(found["symbols"][f"CONFIG_{name}"] for name in ("BLOCK", "EXTRA", "BROKEN_CODE")),
    )
    assert base["passed"]
    assert base["files"] == {name: (built.images / name).stat().st_size for name in base["files"]}
    assert [*base["files"]][0] == "vmlinux"
    assert [*base["files"]][-1] == "bzImage"
    assert (block["from"], block["to"], block["passed"]) == ("y", "n", True)
    assert block["with"] == {"CONFIG_EXT2_FS": {"from": "y", "to": "n"}}
    assert (extra["from"], extra["to"], extra["with"]) == ("n", "y", {})
    costs = extra["costs"]
    assert costs["files"] == {
        name: size - base["files"][name] for name, size in extra["files"].items()
    }
    assert costs["objects"] == 1
    assert costs["files"]["vmlinux"] > 0
    assert base["uncounted"] == "the kernel has no n_tty_poll: when its shell answers can't be told"
    assert costs["instructions"] is None
    assert not broken["built"]
    assert "error" in broken["error"]
    assert broken["costs"] == {"files": {}, "memory": {}, "instructions": None, "objects": None}
    assert runs(built, 2)
    ran = runs(built)
    again = price(built, path, "BLOCK", "EXTRA", "--no-boot")
    assert price(built, path, "BLOCK", "EXTRA") == again
    assert runs(built) == ran
    assert all(one["known"] for one in again["symbols"].values())
    assert again["symbols"]["CONFIG_EXTRA"]["costs"] == costs
    built.append(built.linux / "init" / "main.c", "\nint another_one = 1;\n")
    other = price(built, path, "EXTRA")
    assert not other["symbols"]["CONFIG_EXTRA"]["known"]
    assert other["base"]["files"]["vmlinux"] != base["files"]["vmlinux"]


def test_what_can_not_be_switched_says_why(built: Playground, path: str) -> None:
    said = built.fails(*HOW, "price", "--no-boot", "BLOCK", "EXT2_FSS", PATH=path)
    assert "Did you mean 'EXT2_FS'?" in said
    assert "first the kernel as it is" not in said
    said = built.doit(
        *HOW,
        "price",
        "--no-boot",
        "NE2K_PCI",
        "PRINTK",
        "KERNEL_GZIP",
        "EXT2_FS",
        status=1,
        PATH=path,
    ).text
    assert "3 of 4 symbols can't be switched: CONFIG_NE2K_PCI, CONFIG_PRINTK" in said
    assert "NET_VENDOR_8390=n  <-- not met" in said
    assert "PRINTK       its prompt is hidden" in said
    assert (
        'of the choice "Kernel compression mode" one has to be on: switch CONFIG_KERNEL_BZIP2'
        in said
    )
    (row,) = [line.split() for line in said.splitlines() if line.startswith("EXT2_FS ")]
    assert row[-2:] == ["off", "built"]
    shutil.rmtree(built.here / "trials")
    assert "Did you mean 'EXT2_FS'?" in built.fails(
        *HOW, "price", "--no-boot", "EXT2_FSS", PATH=path
    )
    assert price(built, path, "--no-boot", "EXTRA")["symbols"]["CONFIG_EXTRA"]["built"]
    gzip = Path(path.partition(":")[0], "gzip")  # another compressor may make another size
    gzip.write_text(f'#!/bin/sh\nexec {shutil.which("gzip")} "$@"\n')
    gzip.chmod(0o755)
    extra = price(built, path, "--no-boot", "EXTRA")["symbols"]["CONFIG_EXTRA"]
    assert (extra["built"], extra["known"]) == (True, False)


def test_options_that_are_none_have_one_status_wherever_they_stand(fresh: Playground) -> None:
    for words, said in (
        (("--sort=byte", "BLOCK"), "Did you mean 'bytes'?"),
        (("BLOCK", "--sort=byte"), "Did you mean 'bytes'?"),
        ((), "name symbols, or say --all"),
        (("--all", "BLOCK"), "not both"),
        (("BLOCK", "--boott"), "option --boott"),
        (("--boott", "BLOCK"), "option --boott"),
        (("BLOCK", "-n", "x"), "--slots= takes a whole number"),
        (("-n", "x", "BLOCK"), "--slots= takes a whole number"),
        (("BLOCK", "-n", "0"), "-n 0: from 1 to"),
        (("-n", "0", "BLOCK"), "-n 0: from 1 to"),
    ):
        text = fresh.doit("vmlinux", "price", *words, status=3).text
        assert f"{said}" in text
        assert "hint: " in text
    assert not fresh.finished()  # nothing was built before the options were read


def test_a_run_that_was_ended_goes_on_with_what_is_missing(built: Playground, path: str) -> None:
    price(built, path, "BLOCK")
    for number in (signal.SIGINT, signal.SIGKILL):
        built.pause("extra.o")
        process = built.start(*HOW, "price", "BLOCK", "EXTRA", PATH=path)
        built.reached("extra.o")
        os.kill(process.pid, number)
        said = finish(process)
        built.resume()
        if number == signal.SIGINT:
            assert process.returncode == 128 + number
            assert said.strip().splitlines()[-1] == "interrupted; what was finished is kept"
    found = price(built, path, "BLOCK", "EXTRA")["symbols"]
    assert found["CONFIG_BLOCK"]["known"]
    assert not found["CONFIG_EXTRA"]["known"]
    assert all(one["passed"] for one in found.values())


@pytest.mark.long
def test_a_root_filesystem_inside_the_kernel_is_part_of_its_price(
    built: Playground, path: str
) -> None:
    machine = built.top / "configs/machines/fake.toml"
    text = machine.read_text()
    machine.write_text(
        text.replace('image = "bzImage"\n', 'image = "bzImage"\ninitramfs = true\n', 1)
    )
    source = 'CONFIG_INITRAMFS_SOURCE="../../images/initramfs.cpio"\n'
    built.append("configs/kernel/fake-base.config", source)

    def priced() -> dict[str, Any]:
        words = ("initramfs=none", "price", "--json", "--no-boot", "EXTRA")
        return json.loads(built.doit(*words, PATH=path).text)

    before = priced()
    assert priced()["symbols"][0]["known"]
    (built.top / "overlays/fake/more").write_bytes(bytes(range(256)) * 99)
    after = priced()
    assert not after["symbols"][0]["known"]
    assert after["base"]["files"]["vmlinux"] - before["base"]["files"]["vmlinux"] >= 256 * 99


@pytest.mark.long
def test_an_edit_of_a_patch_is_one_of_the_sources(built: Playground, path: str) -> None:
    folder = built.top / "configs" / "patches" / "mine"
    folder.mkdir(parents=True)

    def priced() -> dict[str, Any]:
        words = ("patches=mine", "price", "--json", "--no-boot", "EXTRA")
        return json.loads(built.doit(*words, PATH=path).text)

    (folder / "1.patch").write_text(PATCH.format(9))
    before = priced()
    assert priced()["symbols"][0]["known"]
    (folder / "1.patch").write_text(PATCH.format(900))
    after = priced()
    assert not after["symbols"][0]["known"]
    assert after["base"]["files"]["Image"] - before["base"]["files"]["Image"] >= 4 * 891
    built.append(built.linux / "init" / "main.c", "\nint another_one = 1;\n")  # not patched
    assert not priced()["symbols"][0]["known"]
