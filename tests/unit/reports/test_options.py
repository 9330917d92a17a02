"""Files that options name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from doit.cmdparse import CmdOption, TaskParse

from tasks.reports import options
from tasks.system.errors import PiggyError


def test_a_file_to_write_is_a_file(tmp_path: Path) -> None:
    assert options.target("--out", str(tmp_path / "x.html")) == tmp_path / "x.html"
    (tmp_path / "link").symlink_to(tmp_path / "real.html")
    assert options.target("--out", str(tmp_path / "link")) == tmp_path / "real.html"
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for bad, said in (
        (str(tmp_path), "--out=.* is a folder"),
        (f"{tmp_path}/new/", "is a folder"),
        ("/dev/null", "no regular file"),
        (str(tmp_path / "no" / "x.html"), "there is no folder"),
        (str(tmp_path / "circle"), "can't be written"),
        (str(tmp_path / ("x" * 300)), "can't be written"),
        ("~no such user/x", "can't be written"),
    ):
        with pytest.raises(PiggyError, match=said):
            options.target("--out", bad)


class Asked(msgspec.Struct):
    limit: str = ""
    depth: int = 1


def test_an_empty_value_is_none() -> None:
    params = options.described(Asked, {"limit": "l", "depth": "d"}, {"limit": {"long": "most"}})
    assert options.split("size", ["a", "--most=9K", "--depth=2"], params) == (
        ["a"],
        {"limit": "9K", "depth": 2},
    )
    with pytest.raises(PiggyError, match="--most= has no value"):
        options.split("size", ["a", "--most="], params)
    parser = TaskParse([CmdOption(dict(one)) for one in params])
    assert parser.parse(["--most=9K"])[0]["limit"] == "9K"
    assert parser.parse([])[0]["limit"] == ""
    with pytest.raises(PiggyError, match="--most= has no value"):
        parser.parse(["--most="])
    with pytest.raises(PiggyError, match="--depth= takes a whole number") as caught:
        parser.parse(["--depth=-1"])
    assert caught.value.hint
