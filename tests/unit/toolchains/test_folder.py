from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tasks.toolchains import folder

NAMES = ("bin/gcc", "lib/libc.a")


def make(place: Path) -> None:
    for name in NAMES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)


def test_intact_only_with_every_key_file_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "home"
    make(place)
    assert not folder.intact(place)
    folder.seal(place, NAMES)
    assert folder.intact(place)
    assert folder.key_files(place) == [str(place / name) for name in NAMES]
    assert not folder.intact(tmp_path / "missing")
    for name in NAMES:
        (place / name).write_text("")
        assert not folder.intact(place)
        (place / name).unlink()
        assert not folder.intact(place)
        (place / name).write_text(name)
        assert folder.intact(place)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../outside", "", "a\0b"])
def test_a_seal_names_only_files_of_its_folder(tmp_path: Path, name: str) -> None:
    place = tmp_path / "home"
    make(place)
    (tmp_path / "outside").write_text("outside")
    (place / folder.SEAL).write_text(f"{hashlib.sha256(b'outside').hexdigest()}  {name}\n")
    assert not folder.intact(place)
    with pytest.raises(ValueError, match="is no file of"):
        folder.seal(place, [name])


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "no UTF-8"])
def test_a_seal_that_is_none(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "home"
    make(place)
    folder.seal(place, NAMES)
    seal = place / folder.SEAL
    seal.rename(tmp_path / "seal")
    if kind == "pipe":
        os.mkfifo(seal)
    elif kind == "folder":
        seal.mkdir()
    elif kind == "link":
        seal.symlink_to(tmp_path / "seal")
    else:
        seal.write_bytes(b"\xff")
    assert not folder.intact(place)


def test_staged_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "abc"
    with folder.staged(place, NAMES) as (work, made):
        assert work.is_dir()
        assert str(made).endswith(str(place))
        make(made)
    assert folder.intact(place)
    assert [path.name for path in tmp_path.iterdir()] == ["abc"]
    with (  # noqa: PT012
        pytest.raises(RuntimeError),
        folder.staged(tmp_path / "def", NAMES) as (_, made),
    ):
        make(made)
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["abc"]
