"""What the project is told, in whatever form, and what it says: each command ends with a sentence,
and never hangs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from playground import Kept, Playground

BASE = "configs/kernel/fake-base.config"


def link(path: Path) -> None:
    path.symlink_to("nowhere")


def unreadable(path: Path) -> None:
    path.write_text("CONFIG_A=y\n")
    path.chmod(0)


def latin1(path: Path) -> None:
    path.write_bytes(b"CONFIG_64BIT=y\n# f\xfcr\n")


@pytest.mark.parametrize(
    ("name", "put", "said"),
    [
        ("local.toml", os.mkfifo, r"local\.toml can't be read: it is no regular file"),
        ("local.toml", unreadable, r"local\.toml can't be read: Permission denied"),
        ("configs/machines/fake.toml", link, r"fake\.toml is a link to nothing"),
        (
            BASE,
            unreadable,
            r"fragment configs/kernel/fake-base\.config can't be read: Permission denied",
        ),
        (BASE, latin1, r"configs/kernel/fake-base\.config:2: not UTF-8 text"),
        (
            "configs/kernel/local/fake.config",
            os.mkfifo,
            r"kernel/local/fake\.config can't be read: it is no regular file",
        ),
    ],
)
def test_odd_files_in_place_of_ours(
    fresh: Playground, name: str, put: Callable[[Path], object], said: str
) -> None:
    path = fresh.top / name
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        path.rename(fresh.top / "aside")
    put(path)
    fresh.limit, fresh.plain = 20, True
    try:
        text = fresh.fails("list")
        assert re.search(said, text), text
        assert len(text.splitlines()) <= 2, text
    finally:
        fresh.limit, fresh.plain = 60, False


@pytest.mark.parametrize(
    "text", [b"\xef\xbb\xbfCONFIG_MODULES=y\n", b"# first\r\nCONFIG_MODULES=y \t # yes\r\n"]
)
def test_modules_are_not_lost_without_a_word(
    fresh: Playground, tmp_path: Path, text: bytes
) -> None:
    (tmp_path / "m.config").write_bytes(text)
    words = (f"fragments={tmp_path}/m.config", "list")
    assert re.search(r"^modules ", fresh.doit(*words).text, re.MULTILINE)
    (tmp_path / "m.config").write_bytes(text.replace(b"=y", b"=n"))
    assert not re.search(r"^modules ", fresh.doit(*words).text, re.MULTILINE)


def test_a_misspelt_symbol_is_not_turned_off(built: Playground, kept: Kept) -> None:
    built.append(BASE, "# CONFIG_PRINKT is not set\n")
    text = built.fails("kernel_config")
    assert re.search(
        r"fake-base\.config:\d+: CONFIG_PRINKT is to be off, and there is no such symbol\n"
        r"\s+no such symbol in this tree; the nearest: CONFIG_PRINTK\n.*'# optional'",
        text,
    ), text
    built.edit(
        BASE,
        "# CONFIG_PRINKT is not set\n",
        "# CONFIG_PRINKT is not set  # optional\n# CONFIG_NE2K_PCI is not set\n",
    )
    assert (
        "optional" in built.doit("kernel_config").text
    )  # and one that is only out of sight is known
    built.append("configs/busybox/fake.config", "# CONFIG_TCC is not set\n")
    assert "CONFIG_TCC is to be off, and there is no such symbol" in built.fails("busybox_config")


def test_a_fragment_of_the_kernels_own_as_optional(built: Playground, tmp_path: Path) -> None:
    path = tmp_path / "kvm_guest.config"
    path.write_text("CONFIG_NET=y\nCONFIG_S390_GUEST=y\nCONFIG_NE2K_PCI=y\n")
    text = built.fails(f"fragments={path}", "kernel_config")
    assert "S390_GUEST" in text
    done = built.doit(f"fragments={path}?", "kernel_config")
    assert re.search(rf"optional +{path}:2: CONFIG_S390_GUEST=y did not take", done.text), done.text
    assert built.doit(f"fragments={path}?", "kernel_config").ran == []
    assert "did not take" in built.fails(
        f"fragments={path}", "kernel_config"
    )  # it is another request


def test_the_console(built: Playground) -> None:
    def ended(shell: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {shell}"],
            cwd=built.top,
            env=built.environ(),
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stderr

    for command in ("list", "settings", "plan", "info vmlinux", ""):
        assert ended(f"doit {command} | true") == (141, ""), command
    assert ended("doit list >/dev/full") == (1, "ERROR: standard output: No space left on device\n")
    assert ended("doit settings >&-") == (0, "")
    assert ended("doit list >&- 2>&- <&-") == (0, "")
    assert ended("doit nosuch >&- 2>&-")[0] == 3


def test_reading_does_not_wait(built: Playground) -> None:
    built.append(built.linux / "init/main.c", "/* more */\n")
    built.pause("main.o")
    process = built.start("vmlinux")
    built.reached("main.o")
    built.limit = 30
    try:
        for words in (
            ["settings", "store"],
            ["why"],
            ["plan"],
            ["list"],
            ["info", "vmlinux"],
            ["doctor"],
        ):
            text = built.doit(*words, status=None).text
            assert "WAIT" not in text
            assert "locked" not in text
    finally:
        built.limit = 60
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    built.resume()
    built.doit()
    assert built.doit().ran == []


def test_a_project_in_a_folder_whose_name_is_no_text(fresh: Playground, tmp_path: Path) -> None:
    place = tmp_path / "caf\udce9"
    shutil.copytree(fresh.top, place, ignore=shutil.ignore_patterns("dl", "__pycache__"))
    done = subprocess.run(
        ["doit", "list"],
        cwd=place,
        env=fresh.environ(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.startswith(
        f"ERROR: the project lies in '{tmp_path}/caf\\udce9', which is not UTF-8".encode()
    )
