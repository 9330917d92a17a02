from __future__ import annotations

from pathlib import Path

from tasks.reports import verify


def test_the_first_difference_is_named(tmp_path: Path) -> None:
    mine, clean = tmp_path / "mine", tmp_path / "clean"
    mine.mkdir()
    clean.mkdir()
    big = bytes(range(256)) * 1000
    for name, left, right in (
        ("same", big, big),
        ("byte", big, big[:200_001] + b"!" + big[200_002:]),
        ("longer", big + b"x", big),
        ("gone", None, b"x"),
        ("new", b"x", None),
        ("neither", None, None),
    ):
        for folder, data in ((mine, left), (clean, right)):
            if data is not None:
                (folder / name).write_bytes(data)
    found = verify.compare(mine, clean, ["same", "byte", "longer", "gone", "new", "neither"])
    assert [(one.name, one.offset) for one in found] == [
        ("byte", 200_001),
        ("longer", 256_000),
        ("gone", 0),
        ("new", 0),
    ]
    assert (
        str(found[0])
        == "byte differs from byte 200,001 on (256,000 B here, 256,000 B in the clean build)"
    )
    assert str(found[2]) == "gone differs from byte 0 on (missing here, 1 B in the clean build)"
