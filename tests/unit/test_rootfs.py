"""What of an overlay's state decides what is in the image."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks import rootfs
from tasks.filesystem.tree import Entry
from tasks.system.errors import PiggyError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    rootfs.MODES.parent.mkdir(parents=True)
    rootfs.MODES.write_text("/base/etc/rc f 755 0 0\n/b/etc/rc f 755 0 0\n")
    return SimpleNamespace(
        overlays=[Path("overlays/base"), Path("/mine/base"), Path("overlays/a b")]
    )


@pytest.mark.parametrize(
    ("name", "state", "counts"),
    [
        ("overlays/base etc/rc", "file 700  d1", "file  d1"),
        ("overlays/base etc/rc", "file 700  user.x=aa d1", "file  user.x=aa d1"),
        ("overlays/base etc", "dir 700 ", "dir "),
        ("overlays/base etc/rc", "link 777 init", "link 777 init"),
        ("overlays/base etc/other", "file 700  d1", "file 700  d1"),
        ("overlays/a b etc/rc", "file 700  d1", "file 700  d1"),
        ("/mine/base etc/rc", "file 700  d1", "file 700  d1"),
        ("overlays/base ", "can't be read: no", "can't be read: no"),
    ],
)
def test_a_mode_that_the_table_replaces(project: Any, name: str, state: str, counts: str) -> None:
    assert rootfs.without_table_modes(project)(name, state) == counts


def test_a_table_that_can_not_be_read_replaces_nothing(project: Any) -> None:
    rootfs.MODES.write_text("what?\n")
    counts = rootfs.without_table_modes(project)
    assert counts("overlays/base etc/rc", "file 700  d1") == "file 700  d1"


def test_scripts_are_held_against_the_configuration_where_busybox_has_no_tree(
    tmp_path: Path,
) -> None:
    """As busybox came from the store, and its tree is gone."""
    config = tmp_path / "busybox.config"
    config.write_text("CONFIG_LS=y\n# CONFIG_SED is not set\n# CONFIG_RUN_PARTS is not set\n")
    layout = SimpleNamespace(busybox_config=config, busybox_src=tmp_path / "gone")
    its: Any = SimpleNamespace(layout=layout)

    def entries(text: str) -> list[Entry]:
        script = Entry("/etc/s", "file", 0o755, source=f"#!/bin/sh\n{text}\n".encode())
        return [Entry("/bin/ls", "link", 0o777, target="busybox"), script]

    rootfs.check_applets(its, entries("ls; mine"))
    for name in ("sed", "run-parts"):
        with pytest.raises(PiggyError, match=f"/etc/s:2 calls {name}\\b"):
            rootfs.check_applets(its, entries(f"ls | {name} x"))
    layout.busybox_src.mkdir()  # a tree that has applets counts
    (layout.busybox_src / "x.c").write_text("//applet:IF_CUT(APPLET(cut, A, B))\n")
    rootfs.check_applets(its, entries("ls | sed x"))


SBIN = Entry("/sbin", "dir", 0o755)


@pytest.mark.parametrize(
    ("entries", "asked", "target"),
    [
        ([SBIN, Entry("/sbin/init", "file", 0o755)], "", "sbin/init"),
        ([SBIN, Entry("/sbin/init", "file", 0o755)], "/function", "sbin/init"),
        ([SBIN, Entry("/sbin/init", "file", 0o644)], "/function", ""),
        ([Entry("/function", "file", 0o755)], "/function", ""),
        ([], "", "sbin/init"),  # refused by what writes the archive
    ],
)
def test_the_link_init_does_not_follow_the_command_line(
    entries: list[Entry], asked: str, target: str
) -> None:
    assert rootfs.init_link(entries, asked) == target
