from __future__ import annotations

import pytest

from tasks.graph.reason import Reason
from tasks.kbuild.saved import Unfamiliar
from tasks.shortway import conditions


def test_what_may_be_edited() -> None:
    edits = [
        Reason("discovered", "/src/kernel/panic.c", "1", "2"),
        Reason("discovered", "/src/a/b.h", "1", "2"),
        Reason("discovered", "/src/a/x.S", "1", "2"),
        Reason("files", "build/images/config", "1", "2"),
    ]
    assert conditions.edited(edits, ["build/images/config"]) == {
        "/src/kernel/panic.c",
        "/src/a/b.h",
        "/src/a/x.S",
    }


@pytest.mark.parametrize(
    "reason",
    [
        Reason("discovered", "/src/gone.c", "1", ""),
        Reason("discovered", "/src/include/", "1", "2"),
        Reason("discovered", "CONFIG_A.c", "n", "y"),
        Reason("files", "build/images/vmlinux.c", "1", "2"),
        Reason("settings", "arch", "x86", "arm"),
        Reason("tools", "ld", "1", "2"),
    ],
)
def test_what_else_differs_is_left_to_make(reason: Reason) -> None:
    with pytest.raises(Unfamiliar):
        conditions.edited([reason], ["build/images/config"])


@pytest.mark.parametrize(
    "name",
    [
        "kernel/Makefile",
        "Kconfig",
        "scripts/link-vmlinux.sh",
        "arch/x86/kernel/vmlinux.lds.S",
        "kernel/time/timeconst.bc",
        "arch/x86/entry/syscalls/syscall_32.tbl",
        "lib/raid6/int.uc",
    ],
)
def test_what_is_left_to_make(name: str) -> None:
    with pytest.raises(Unfamiliar, match="changed"):
        conditions.edited([Reason("discovered", f"/src/{name}", "1", "2")])
