from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.system.errors import PiggyError
from tasks.toolchains import record
from tasks.toolchains.probe import Facts


def kernel(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "Makefile").write_text(text)
    return folder


def test_the_records(tmp_path: Path) -> None:
    files = [tmp_path / "toolchain.json", tmp_path / "userspace.json"]
    places = SimpleNamespace(toolchain_record=files[0], userspace_record=files[1])
    project: Any = SimpleNamespace(layout=places, machine=SimpleNamespace(userspace=True))
    assert record.records(project) == files
    tool = record.Toolchain("x", "llvm", "/p-", "v", {"LLVM": "-14"})
    user = record.Userspace("y", "/p-", "/cc", "musl", "6.1.0")
    record.write_record(files[0], tool)
    record.write_record(files[1], user)
    assert record.read(project) == tool
    assert record.read_user(project) == user
    project.machine.userspace = False
    assert record.records(project) == [tmp_path / "toolchain.json"]


def test_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its own, not those of all programs of the host."""
    files = [tmp_path / "toolchain.json", tmp_path / "userspace.json"]
    places = SimpleNamespace(toolchain_record=files[0], userspace_record=files[1])
    project: Any = SimpleNamespace(layout=places)
    assert record.folders(project) == {}
    monkeypatch.setenv("PATH", f"{tmp_path}/host/bin:/usr/bin")
    (tmp_path / "link").symlink_to(tmp_path / "host" / "bin")
    for prefix, found in {
        "arm-linux-": {},
        "/usr/bin/arm-linux-": {},
        f"{tmp_path}/host/bin/arm-": {},
        f"{tmp_path}/link/arm-": {},
        "/opt/x/bin/arm-linux-": {"tools": "/opt/x"},
    }.items():
        record.write_record(files[0], record.Toolchain("x", "path", prefix, "v"))
        assert record.folders(project) == found
    record.write_record(files[1], record.Userspace("y", "arm-", "/b/1/bin/musl-gcc", "m", "6.1"))
    assert record.folders(project) == {"tools": "/opt/x", "libc": "/b/1"}


@pytest.mark.parametrize("text", ["precious\n", "null", '{"id": 5}', "[" * 100_000, "\xff"])
def test_what_is_no_record_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "toolchain.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(PiggyError, match="toolchain.json can't be read: .") as caught:
        record.decode(path, record.Toolchain)
    assert caught.value.hint == "remove it, and 'doit toolchain' makes it anew"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_a_record_is_a_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Opening a pipe for reading would block for ever."""
    make(tmp_path / "toolchain.json")
    with pytest.raises(PiggyError, match="toolchain.json can't be read: .") as caught:
        record.decode(tmp_path / "toolchain.json", record.Toolchain)
    assert "remove it" in str(caught.value.hint)


def test_the_kernels_version(tmp_path: Path) -> None:
    assert record.kernel_version(
        kernel(tmp_path / "a", "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 3\n")
    ) == (6, 12)
    with pytest.raises(PiggyError, match="names no VERSION and PATCHLEVEL"):
        record.kernel_version(kernel(tmp_path / "b", "all:\n"))
    with pytest.raises(PiggyError, match="names no VERSION"):
        record.kernel_version(tmp_path / "none")


@pytest.mark.parametrize(
    ("headers", "fine"),
    [("5.15.200", True), ("6.1.0", True), ("6.1.255", True), ("6.2.0", False), ("7.0.0", False)],
)
def test_headers_may_not_be_newer_than_the_kernel(tmp_path: Path, headers: str, fine: bool) -> None:
    project: Any = SimpleNamespace(
        layout=SimpleNamespace(kernel_src=kernel(tmp_path / "k", "VERSION = 6\nPATCHLEVEL = 1\n"))
    )
    facts = Facts("musl", headers, "runs here")
    if fine:
        record.check_headers(facts, project)
        return
    with pytest.raises(PiggyError) as caught:
        record.check_headers(facts, project)
    assert (
        caught.value.message
        == f"the toolchain's kernel headers ({headers}) are newer than the kernel (6.1)"
    )


def test_an_id_is_of_all_its_parts() -> None:
    assert record.ident("a", "b") != record.ident("a", "c") != record.ident("b", "a")
    assert len(record.ident("a")) == 12
