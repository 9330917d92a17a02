from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tasks.cache.digests import Stamps
from tasks.toolchains import libc


def test_the_arguments_of_musls_configure() -> None:
    project: Any = SimpleNamespace(
        machine=SimpleNamespace(triple="odd-linux-gnu", cflags="-march=odd  -O2")
    )
    assert libc.configure_arguments(project) == [
        "--target=odd-linux-gnu",
        "--disable-shared",
        "--enable-wrapper=gcc",
        "CC=odd-linux-gnu-gcc",
        "CROSS_COMPILE=odd-linux-gnu-",
        "CFLAGS=-Os -pipe -march=odd -O2",
    ]


def test_the_exported_headers_of_a_users_own_tree(tmp_path: Path) -> None:
    tree = tmp_path / "linux"
    for name in (
        "include/uapi/linux/a.h",
        "arch/x86/include/uapi/asm/b.h",
        "include/linux/private.h",
        "include/uapi/linux/Kbuild",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    project: Any = SimpleNamespace(
        layout=SimpleNamespace(kernel_src=tree), stamps=Stamps(tmp_path / "s")
    )
    before = libc.uapi_state(project)
    assert sorted(before) == ["arch/x86/include/uapi/asm/b.h", "include/uapi/linux/a.h"]
    (tree / "include/uapi/linux/a.h").write_text("other")
    assert libc.uapi_state(project) != before
