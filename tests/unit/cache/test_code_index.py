"""Identities of actions that are kept from run to run: the same as worked out anew, whatever was
touched meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tasks.cache import code, code_index
from tasks.cache.code import code_id
from tasks.cache.code_index import Codes
from tasks.cache.digests import Stamps

TEXT = (
    "from pathlib import Path\nRULES = Path({rules!r})\n"
    "def action(job):\n    from tasks.system import late\n    return {value}, RULES\n"
)


class Package:
    """A package of modules elsewhere; `process` is a new process that loads it and asks."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top, self.asked = top, 0
        monkeypatch.setattr(code, "TOP", top)
        monkeypatch.setattr(code_index, "TOP", top)
        plain = code_index.code_id

        def counted(action: Callable[..., Any]) -> str:
            self.asked += 1
            return plain(action)

        monkeypatch.setattr(code_index, "code_id", counted)
        self.write("tasks/sample.py", TEXT.format(rules=str(top / "tasks/rules.mk"), value=1))
        self.write("tasks/system/late.py", "x = 1\n")
        self.write("tasks/rules.mk", "one\n")

    def write(self, name: str, text: str) -> None:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def process(self, begun: int | None = None) -> tuple[str, str, bool]:
        """The identity that is said, the right one, and whether it was worked out."""
        code_id.cache_clear()
        code._node.cache_clear()
        time.sleep(2 * code_index.RACY_NS / 1e9)
        begun = time.time_ns() if begun is None else begun
        loaded = ModuleType("tasks.sample")
        exec(compile((self.top / "tasks/sample.py").read_text(), "sample", "exec"), loaded.__dict__)
        stamps = Stamps(self.top / "stamps")
        found, before = Codes(self.top / "codes", stamps, begun), self.asked
        said = found.of(loaded.action)
        found.save()
        stamps.save()
        return said, code_id(loaded.action), self.asked > before


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    return Package(tmp_path, monkeypatch)


def test_what_was_worked_out_once_is_looked_up(package: Package) -> None:
    said, right, asked = package.process()
    assert (said, asked) == (right, True)
    assert package.process() == (said, said, False)


@pytest.mark.parametrize(
    ("name", "text"), [("tasks/system/late.py", "x = 2\n"), ("tasks/rules.mk", "two\n")]
)
def test_a_file_that_it_reaches(package: Package, name: str, text: str) -> None:
    first, _, _ = package.process()
    package.write(name, text)
    said, right, asked = package.process()
    assert said == right != first
    assert asked


def test_other_code(package: Package) -> None:
    first, _, _ = package.process()
    package.write(
        "tasks/sample.py", TEXT.format(rules=str(package.top / "tasks/rules.mk"), value=2)
    )
    said, right, asked = package.process()
    assert said == right != first
    assert asked


@pytest.mark.parametrize("name", ["tasks/sample.py", "tasks/system/late.py"])
def test_a_file_put_back_under_its_old_time(package: Package, name: str) -> None:
    path = package.top / name
    info = path.stat()
    first, _, _ = package.process()
    path.write_text(path.read_text().replace("1", "3"))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    said, right, _ = package.process()
    assert said == right != first


@pytest.mark.parametrize("change", ["new", "gone", "python"])
def test_whatever_else_may_matter(
    package: Package, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package.write("tasks/system/other.py", "")
    package.process()
    if change == "new":
        package.write("tasks/more.py", "")
    elif change == "gone":
        (package.top / "tasks/system/other.py").unlink()
    else:
        monkeypatch.setattr(code_index.sys, "version", "4.0")
    said, right, asked = package.process()
    assert said == right
    assert asked
    assert not package.process()[2]


def test_what_was_touched_while_it_was_loaded_is_not_looked_up_and_not_kept(
    package: Package,
) -> None:
    package.process()
    kept = (package.top / "codes").read_bytes()
    for number in (2, 3):
        begun = time.time_ns()
        package.write("tasks/system/late.py", f"x = {number}\n")
        assert package.process(begun)[2]
        assert (package.top / "codes").read_bytes() == kept
    assert package.process()[2]
    assert not package.process()[2]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"\x81\xa5state\x01",
        b"\x81\xa5state\xa1\xff",
        b"\x81\xa1x" + b"\x91" * 100_000,
    ],
    ids=range(5),
)
def test_a_damaged_file(package: Package, content: bytes) -> None:
    said = package.process()[0]
    (package.top / "codes").write_bytes(content)
    assert package.process() == (said, said, True)
    assert package.process() == (said, said, False)


def test_a_folder_that_cannot_be_written(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(code_index, "write_whole", full)
    said, right, _ = package.process()
    assert said == right


def test_without_a_start_nothing_is_kept(package: Package) -> None:
    assert package.process(begun=0)[2]
    assert not (package.top / "codes").exists()
