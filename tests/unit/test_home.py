from __future__ import annotations

from pathlib import Path

import pytest

from tasks.kit import home

NAMES = ("bin/gcc", "lib/libc.a")


def make(place: Path) -> None:
    for name in NAMES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)


def test_intact_only_with_every_key_file_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "home"
    make(place)
    assert not home.intact(place)
    home.seal(place, NAMES)
    assert home.intact(place)
    assert home.key_files(place) == [str(place / name) for name in NAMES]
    assert not home.intact(tmp_path / "missing")
    for name in NAMES:
        (place / name).write_text("")
        assert not home.intact(place)
        (place / name).unlink()
        assert not home.intact(place)
        (place / name).write_text(name)
        assert home.intact(place)


def test_staged_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "abc"
    with home.staged(place, NAMES) as (work, made):
        assert work.is_dir()
        assert str(made).endswith(str(place))
        make(made)
    assert home.intact(place)
    assert [path.name for path in tmp_path.iterdir()] == ["abc"]
    with pytest.raises(RuntimeError), home.staged(tmp_path / "def", NAMES) as (_, made):  # noqa: PT012
        make(made)
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["abc"]
