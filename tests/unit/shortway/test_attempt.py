from __future__ import annotations

import pytest

from tasks.kbuild.saved import Unfamiliar
from tasks.shortway import attempt


def test_what_may_be_edited() -> None:
    edits = [
        "discovered: /src/kernel/panic.c changed",
        "discovered: /src/a/b.h changed",
        "discovered: /src/a/x.S changed",
        "files: file build/images/vmlinux changed",
    ]
    assert attempt._edited(edits) == {"/src/kernel/panic.c", "/src/a/b.h", "/src/a/x.S"}


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
        attempt._edited([f"discovered: /src/{name} changed"])
