"""A libc from the store is the one that was built, with the paths of its new folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.cache.store import Store
from tasks.graph import stored
from tasks.toolchains import folder, libc_store

NAMES = ("bin/x-gcc", "lib/x-gcc.specs", "lib/libc.a", "include/linux/version.h")


@pytest.fixture
def job(tmp_path: Path) -> Any:
    project = SimpleNamespace(store=Store(tmp_path / "store", 1 << 20))
    return SimpleNamespace(project=project, log=tmp_path / "log")


def built(home: Path, archive: bytes = b"!<arch>") -> Path:
    """A libc as it was built in that folder."""
    for name in NAMES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(archive)
    (home / "bin/x-gcc").write_text(f'#!/bin/sh\nexec gcc -specs {home}/lib/x-gcc.specs "$@"\n')
    (home / "bin/x-gcc").chmod(0o755)
    (home / "lib/x-gcc.specs").write_text(f"-L{home}/lib {home}/lib/crt1.o")
    (home / "lib/link").symlink_to("libc.a")
    folder.seal(home, NAMES)
    return home


def contents(home: Path) -> dict[str, str]:
    return {
        str(path.relative_to(home)): path.read_text().replace(str(home), "HOME")
        for path in home.rglob("*")
        if path.is_file() and path.name != folder.SEAL
    }


def test_it_comes_back_in_another_folder(job: Any, tmp_path: Path) -> None:
    one, two = built(tmp_path / "a" / "one"), tmp_path / "deep" / "er" / "two"
    two.parent.mkdir(parents=True)
    libc_store.keep(job, "0" * 32, one)
    assert libc_store.bring_back(job.project, "0" * 32, two, NAMES)
    assert contents(two) == contents(one)
    assert str(one) not in (two / "bin/x-gcc").read_text()
    assert (two / "bin/x-gcc").stat().st_mode & 0o100
    assert (two / "lib/link").is_symlink()
    assert folder.intact(two)
    assert [path.name for path in two.parent.iterdir()] == ["two"]
    assert not libc_store.bring_back(job.project, "1" * 32, tmp_path / "three", NAMES)


def test_one_with_its_path_in_another_file_is_not_kept(job: Any, tmp_path: Path) -> None:
    home = tmp_path / "one"
    libc_store.keep(job, "0" * 32, built(home, b"made in " + bytes(home)))
    assert job.project.store.results() == []


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b"no archive", {"home": "/x"}),
        (None, {"home": ""}),
        (None, {"home": "x"}),
        (None, {"home": 5}),
        (None, {}),
    ],
)
def test_what_is_no_libc_is_left_alone(
    job: Any, tmp_path: Path, data: bytes | None, values: dict[str, Any]
) -> None:
    archive = tmp_path / "archive"
    if data is None:
        libc_store.sdk.pack(built(tmp_path / "one"), "libc", archive, job.log)
    else:
        archive.write_bytes(data)
    stored.keep_file(job.project.store, libc_store.TASK, "0" * 32, archive, values)
    assert len(job.project.store.results()) == 1
    home = tmp_path / "new" / "two"
    home.parent.mkdir()
    assert not libc_store.bring_back(job.project, "0" * 32, home, NAMES)
    assert [*home.parent.iterdir()] == []


def test_one_that_lacks_a_key_file_is_built(job: Any, tmp_path: Path) -> None:
    one, two = built(tmp_path / "one"), tmp_path / "two"
    (one / "lib/libc.a").unlink()
    libc_store.keep(job, "0" * 32, one)
    assert not libc_store.bring_back(job.project, "0" * 32, two, NAMES)
    assert not two.exists()


def test_the_source_counts_by_its_content(job: Any, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.c").write_text("int a;")
    first = libc_store.key(job.project, tmp_path / "src", "recipe")
    assert first == libc_store.key(job.project, tmp_path / "src", "recipe")
    assert first != libc_store.key(job.project, tmp_path / "src", "another")
    (tmp_path / "src" / "a.c").write_text("int b;")
    assert first != libc_store.key(job.project, tmp_path / "src", "recipe")
    job.project.store.limit = 0
    assert libc_store.key(job.project, tmp_path / "src", "recipe") == ""
    libc_store.keep(job, "", tmp_path)
    assert not libc_store.bring_back(job.project, "", tmp_path / "two", NAMES)
