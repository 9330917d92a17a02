"""What goes wrong ends with a status other than 0 and one clear message, and what was wrong once
does not stick."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from playground import Kept, Playground

FAKE = "configs/machines/fake.toml"
BASE = "configs/kernel/fake-base.config"


@pytest.mark.parametrize(
    ("words", "env", "local", "said"),
    [
        (["machine=fak"], {}, "", r"command line.*no machine 'fak'.*Did you mean 'fake'"),
        ([], {"MACHINE": "fakke"}, "", r"environment MACHINE.*'fakke'.*Did you mean 'fake'"),
        (["jbos=2"], {}, "", r"command line: unknown setting 'jbos'.*'jobs'"),
        (["jobs=many"], {}, "", r"command line.*'jobs'.*many"),
        (["jobs=-1"], {}, "", r"command line.*'jobs'"),
        (["snapshot=perhaps"], {}, "", r"command line.*'snapshot'.*perhaps"),
        (["initramfs=gzpi"], {}, "", r"command line.*'initramfs'.*Did you mean 'gzip'"),
        ([], {"PIGGYBACK_JBOS": "2"}, "", r"environment.*PIGGYBACK_JBOS.*PIGGYBACK_JOBS"),
        ([], {"PIGGYBACK_TIMEOUT": "0"}, "", r"PIGGYBACK_TIMEOUT.*'timeout'"),
        ([], {}, "jbos = 2\n", r"local.toml.*'jbos'.*'jobs'"),
        ([], {}, "jobs = '2'\n", r"local.toml.*'jobs'"),
        ([], {}, "jobs = \n", r"local.toml.*not valid TOML.*line 1"),
        ([], {}, "[machines.fakke]\njobs = 2\n", r"local.toml.*'fakke'.*'fake'"),
        (["kernel=6.3"], {}, "", r"command line.*no kernel '(linux-)?6.3'.*6.1, 6.2"),
        (["src=/x/my module"], {}, "", r"command line.*my module.*rename the folder"),
        (["kernel_src=/nowhere"], {}, "", r"command line.*/nowhere"),
        (["kernel_src=configs"], {}, "", r"command line.*configs.*Makefile"),
        (["overlays=faek"], {}, "", r"command line.*no overlay 'faek'.*'fake'"),
        (["notatask"], {}, "", r"notatask"),
        (["build=dodo.py"], {}, "", r"dodo.py"),
        (["build=/proc/nowhere"], {}, "", r"/proc/nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_typos(
    fresh: Playground, words: list[str], env: dict[str, str], local: str, said: str
) -> None:
    if local:
        (fresh.top / "local.toml").write_text(local)
    text = fresh.fails(*words, **env)
    assert re.search(said, text, re.DOTALL), text
    assert len(text.splitlines()) <= 4, text


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (FAKE, "arch =", "arhc =", r"fake.toml.*'arhc'.*'arch'"),
        (FAKE, '"fake-serial"', '"fake-serail"', r"fake.toml.*fake-serail.*'fake-serial'"),
        (FAKE, 'image = "bzImage"', 'image = "bzimage"', r"fake.toml.*'bzimage'.*'bzImage'"),
        (FAKE, 'chain = "x86"', 'chain = "x68"', r"fake.toml.*'x68'.*'x86'"),
        (FAKE, 'overlays = ["fake"]', 'overlays = ["faek"]', r"fake.toml.*faek.*'fake'"),
        (FAKE, "[rootfs]", "[rootfs", r"fake.toml.*not valid TOML"),
        ("configs/sources.toml", "sha256", "sha265", r"sources.toml.*sha265"),
        (
            "configs/chains.toml",
            "vmlinux.bin.$(suffix-y)",
            "vmlinux.bin.nope",
            r"piggy.gz failed.*vmlinux.bin.nope",
        ),
        (
            FAKE,
            'triple = "x86_64',
            'triple = "sparc128',
            r"sparc128-linux-gnu-gcc.*not installed.*doit setup",
        ),
        (
            BASE,
            "CONFIG_64BIT=y",
            "CONFIG_64BTI=y",
            r"fake-base.config:2.*CONFIG_64BTI.*CONFIG_64BIT",
        ),
        (
            BASE,
            "CONFIG_64BIT=y",
            "CONFIG_64BIT=yes",
            r"fake-base.config:2.*did you mean 'CONFIG_64BIT=y'",
        ),
        (
            BASE,
            "CONFIG_64BIT=y",
            "CONFIG_NE2K_PCI=y",
            r"fake-base.config:2.*NE2K_PCI.*NET_VENDOR_8390.*CONFIG_NETDEVICES=y",
        ),
        ("configs/busybox/fake.config", "STATIC", "STATTIC", r"fake.config:1.*STATTIC.*STATIC"),
        ("configs/rootfs/fake.txt", "/dev/console c", "/dev/console z", r"fake.txt:2"),
    ],
)
def test_mistakes_in_configs(
    built: Playground, kept: Kept, file: str, old: str, new: str, said: str
) -> None:
    built.edit(file, old, new)
    text = built.fails()
    assert re.search(said, text, re.DOTALL), text
    if "failed:" in text:  # otherwise nothing was begun
        built.edit(file, new, old)
        built.doit()
        assert built.digests() == kept.digests


def test_optional_symbol(built: Playground) -> None:
    built.append(BASE, "CONFIG_NE2K_PCI=y  # optional: not every kernel has it\n")
    text = built.doit().text
    assert "NE2K_PCI" in text
    assert "optional" in text


def test_source_that_does_not_compile(built: Playground, kept: Kept) -> None:
    built.append(BASE, "CONFIG_BROKEN_CODE=y\n")
    text = built.fails()
    assert re.search(
        r"vmlinux failed: .*broken.c:5:\d+: error: .*no_such_func.*command: .*make -C.*log:"
        r" \S+vmlinux.log",
        text,
        re.DOTALL,
    ), text
    assert text.count("no_such_function'") <= 2
    built.edit(BASE, "CONFIG_BROKEN_CODE=y\n", "")
    built.doit()
    assert built.digests() == kept.digests
    assert built.doit().ran == []


def test_pasteable_command(built: Playground) -> None:
    """The command in the message really does what failed."""
    built.append(built.linux / "kernel/panic.c", "#error wanted\n")
    text = built.fails()
    (line,) = re.findall(r"command: (.*)", text)
    again = subprocess.run(
        ["sh", "-c", line],
        cwd=built.top,
        env=built.environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 1  # the compiler's own
    assert "#error wanted" in again.stderr


def test_a_failure_keeps_what_was_done(built: Playground) -> None:
    built.append(built.linux / "kernel/panic.c", "#error wanted\n")
    built.append("build/src/busybox/coreutils/echo.c", "/* more */\n")
    first = built.doit("-c", status=None)
    assert first.status in (1, 2)  # doit's own for tasks that could not be tried
    assert "bzImage, since" in first.text
    assert first.failed == ["vmlinux"]
    assert first.ran == ["busybox"]
    second = built.doit("-c", status=None)
    assert (second.ran, second.failed) == ([], ["vmlinux"])


def test_missing_tool(fresh: Playground, tmp_path: Path) -> None:
    """A PATH with everything but make."""
    for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for tool in Path(folder).iterdir():
            if tool.name != "make" and not (tmp_path / tool.name).exists():
                (tmp_path / tool.name).symlink_to(tool)
    text = fresh.fails(PATH=f"{Path(sys.executable).parent}:{tmp_path}")
    assert "'make' is not installed" in text
    assert "doit setup" in text


def test_tree_configured_in_place(fresh: Playground, tmp_path: Path) -> None:
    """Whatever Kbuild itself would refuse it for."""
    fresh.doit("_unpack:linux-6.1")
    tree = tmp_path / "linux"
    subprocess.run(["cp", "-a", fresh.linux.resolve(), tree], check=True)
    (tree / "arch/arm/include/generated").mkdir(
        parents=True
    )  # of another architecture: that will do
    fresh.doit(f"kernel_src={tree}", "kernel_config")
    for left in ("arch/x86/include/generated", "include/config", ".config"):
        if left == ".config":
            (tree / left).write_text("")
        else:
            (tree / left).mkdir(parents=True)
        text = fresh.fails(f"kernel_src={tree}", "vmlinux")
        assert f"configured in place ({left} is there)" in text
        assert "mrproper" in text
        assert "***" not in text
        (tree / left).unlink() if left == ".config" else (tree / left).rmdir()


@pytest.mark.parametrize("archive", ["linux-6.1.0.tar.gz", "musl-1.0.0.tar.gz"])
def test_damaged_archive(fresh: Playground, kept: Kept, archive: str) -> None:
    path = fresh.top / "dl" / archive
    good = path.read_bytes()
    path.write_bytes(good[:-1000])
    text = fresh.fails("offline=yes")
    assert re.search(rf"{archive}.*truncated or corrupt.*{archive} is missing", text, re.DOTALL), (
        text
    )
    assert not path.exists()
    path.write_bytes(good)
    fresh.doit("offline=yes")
    assert fresh.digests() == kept.digests


def test_offline_with_nothing(fresh: Playground) -> None:
    for path in (fresh.top / "dl").iterdir():
        path.unlink()
    text = fresh.fails("offline=yes")
    assert re.search(r"dl/\S+ is missing.*offline=no.*sha256", text, re.DOTALL), text
    assert list((fresh.top / "dl").glob("*.tar*")) == []


GARBAGE = {
    "text": b"garbage\n" * 999,
    "a database's head": b"SQLite format 3\0" + b"x" * 5000,
    "another database": None,
    "half": None,
    "bad values": None,
}


@pytest.mark.parametrize("what", GARBAGE)
def test_journal_full_of_garbage(built: Playground, kept: Kept, what: str) -> None:
    journal = built.here / "journal.sqlite"
    whole = journal.read_bytes()
    if what == "another database":
        journal.unlink()
        with sqlite3.connect(journal) as database:
            database.execute("create table doit (x)")
        database.close()
    elif what == "half":
        journal.write_bytes(whole[: len(whole) // 2])
    elif what == "bad values":
        with sqlite3.connect(journal) as database:
            database.execute("update doit set task_data = '{\"x'")
        database.close()
    else:
        journal.write_bytes(GARBAGE[what] or b"")
    built.doit()
    assert built.digests() == kept.digests
    assert built.doit().ran == []


@pytest.mark.parametrize("content", [b"", b"\x00garbage", b"{}"])
def test_records_full_of_garbage(built: Playground, kept: Kept, content: bytes) -> None:
    for name in (
        "stamps",
        "toolchain.json",
        "kernel/6.1/piggyback.ledger",
        "kernel/6.1/piggyback.records",
    ):
        (built.here / name).write_bytes(content)
    built.append(built.linux / "kernel/panic.c", "/* more */\n")
    built.doit()
    assert built.digests() == kept.digests
    assert built.doit().ran == []
