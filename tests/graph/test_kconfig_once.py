"""Kconfig without make on the fake kernel: it leaves what make leaves, and asks again what may have
another answer."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from playground import Playground
from test_shortway import as_make_does, plain_make

from tasks.config.project import EPOCH
from tasks.kbuild import make
from tasks.system.process import clean_env

FRAGMENT = "configs/kernel/fake-base.config"
FILES = (
    ".config",
    "include/config/auto.conf",
    "include/config/auto.conf.cmd",
    "include/generated/autoconf.h",
)
FLIPS = [
    "CONFIG_EXTRA=y\n",
    "CONFIG_LOG_BUF_SHIFT=15\n",
    'CONFIG_CMDLINE="a \\"b\\""\n',
    "CONFIG_EXPERT=y\n# CONFIG_BINFMT_ELF is not set\n",
]


def ways(play: Playground, task: str = "kernel_config") -> list[str]:
    """How each of the last run's targets was made: "without make", or why make decided."""
    log = (play.here / "logs" / f"{task}.log").read_text()
    found = re.findall(r"^# Kconfig: (without make|make decides): (.*)$", log, re.MULTILINE)
    return [way if way == "without make" else why for way, why in found]


def asked(play: Playground) -> int:
    """How many commands of Kconfig files the last run of kernel_config ran."""
    log = (play.here / "logs" / "kernel_config.log").read_text()
    return sum(map(int, re.findall(r"(\d+) commands run", log)))


def by_make(play: Playground, obj: Path) -> None:
    """Configure a folder by plain make, from our miniconfig, as kbuild/configure.py has make do."""
    prefix = re.search(
        r'^triple = "(.*)"', (play.top / "configs/machines/fake.toml").read_text(), re.MULTILINE
    )
    assert prefix
    live, kept = obj / ".config", obj / "kept"
    os.replace(live, kept)
    for goal in ("allnoconfig", "syncconfig"):
        subprocess.run(
            [
                "make",
                "-C",
                str(play.linux),
                f"O={obj}",
                "ARCH=x86_64",
                f"CROSS_COMPILE={prefix[1]}-",
                goal,
            ],
            env={
                **clean_env(make.pins(EPOCH)),
                "HOME": str(play.home),
                "KCONFIG_ALLCONFIG": str(play.obj / "piggyback.mini"),
            },
            check=True,
            capture_output=True,
        )
        if goal == "allnoconfig" and live.read_bytes() == kept.read_bytes():
            os.replace(kept, live)


def touched(obj: Path, before: dict[str, int]) -> tuple[set[str], dict[str, int]]:
    """Which files below include/config changed since, and the times of all."""
    now = {
        path.name: path.stat().st_mtime_ns
        for path in (obj / "include/config").iterdir()
        if path.name != "kernel.release"
    }
    return {name for name, when in now.items() if before.get(name) != when}, now


def test_it_leaves_what_make_leaves(built: Playground, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(built.obj, second, symlinks=True)
    _, ours = touched(built.obj, {})
    _, makes = touched(second, {})
    own = built.top / "configs/kernel/local/fake.config"
    own.parent.mkdir()
    for flip in FLIPS:
        built.append(own, flip)
        built.doit("kernel_config")
        assert ways(built) == ["without make", "without make"]
        by_make(built, second)
        for name in FILES:
            assert (built.obj / name).read_bytes() == (second / name).read_bytes(), name
        (changed, ours), (expected, makes) = touched(built.obj, ours), touched(second, makes)
        assert changed == expected
        assert changed > {"auto.conf", "auto.conf.cmd"}
    assert asked(built) == 0
    built.doit("bzImage")
    assert plain_make(built, built.obj) == []
    assert as_make_does(built, tmp_path)


def test_what_the_compiler_is_asked_is_asked_again(built: Playground) -> None:
    built.append(FRAGMENT, FLIPS[0])
    built.doit("kernel_config")
    assert "CONFIG_CC_ANSWER=y" in (built.images / "config").read_text()
    (built.linux / "scripts/kconfig/answer").write_text("n\n")
    built.doit("kernel_config")
    assert ways(built) == ["without make", "without make"]
    assert asked(built) >= 1
    assert "CONFIG_CC_ANSWER" not in (built.images / "config").read_text()


def makefile(play: Playground) -> None:
    play.append(play.linux / "scripts/kconfig/Makefile", "export CC_ANSWER := n\n")


def wrapper(play: Playground) -> None:
    """Kconfig's target does more than to run its program."""
    play.append(
        play.linux / "scripts/kconfig/Makefile", "%config: $(obj)/conf FORCE\n\t@$<; $<; true\n"
    )


def source(play: Playground) -> None:
    play.append(play.linux / "scripts/kconfig/conf.c", "/* more */\n")


def program(play: Playground) -> None:
    (play.obj / "scripts/kconfig/conf").write_text("#!/bin/sh\n")


def record(play: Playground) -> None:
    (play.obj / "scripts/kconfig/.conf.cmd").unlink()


@pytest.mark.parametrize(
    "change",
    [
        wrapper,
        source,
        record,
        pytest.param(makefile, marks=pytest.mark.long),
        pytest.param(program, marks=pytest.mark.long),
    ],
)
def test_what_is_another_thing_is_seen(
    built: Playground, tmp_path: Path, change: Callable[[Playground], None]
) -> None:
    built.append(FRAGMENT, FLIPS[0])
    built.doit("kernel_config")
    change(built)
    if change is wrapper:
        assert "kernel_config" in built.fails("kernel_config")
        assert ways(built)[0].endswith("is more than one run of scripts/kconfig/conf")
        return
    built.append(FRAGMENT, FLIPS[1])
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)
    assert plain_make(built, built.obj) == []
    assert built.doit("bzImage").ran == []


@pytest.mark.parametrize(
    "name",
    [
        "conf",
        "answers",
        *(pytest.param(one, marks=pytest.mark.long) for one in ("watch", "kconfig")),
    ],
)
def test_our_files_may_be_spoilt(built: Playground, tmp_path: Path, name: str) -> None:
    built.append(FRAGMENT, FLIPS[0])
    built.doit("kernel_config")
    (built.obj / f"piggyback.{name}").write_bytes(b"\x7fELF spoilt")
    built.append(FRAGMENT, FLIPS[1])
    built.doit("bzImage")
    assert "make decides" not in " ".join(ways(built))
    assert as_make_does(built, tmp_path)
    assert plain_make(built, built.obj) == []


def test_a_symbol_that_did_not_take_is_an_error_as_ever(built: Playground) -> None:
    built.append(FRAGMENT, "CONFIG_CC_ANSWER=n\n")
    text = built.fails("kernel_config")
    assert "symbols requested of the kernel did not take" in text
    assert "CONFIG_CC_ANSWER" in text


@pytest.mark.parametrize(
    "delay", [0.3, *(pytest.param(one, marks=pytest.mark.long) for one in (0.05, 0.6))]
)
def test_kill_9(built: Playground, tmp_path: Path, delay: float) -> None:
    built.append(FRAGMENT, FLIPS[0])
    process = built.start("kernel_config")
    try:
        process.wait(timeout=delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)
    assert plain_make(built, built.obj) == []
    assert built.doit("bzImage").ran == []
