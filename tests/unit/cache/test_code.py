from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from tasks.cache import code
from tasks.cache.code import code_id
from tasks.config import project

TOP = Path(__file__).parents[3]
BASE = '''
import dataclasses, enum, functools, re
from pathlib import Path
from types import MappingProxyType

import msgspec

TABLE = {"gzip": ("-9", 1), "xz": ("-6", 2)}
WORDS = frozenset({"alpha", "beta", "gamma", "delta"})
LONG = re.compile("@")
PLACE = Path("/nowhere/at/all")

class Kind(enum.Enum):
    ONE = 1

class Parent:
    def inherited(self):
        return 1

class Box(Parent):
    size = 3
    def method(self):
        """What it does."""
        return self.size
    @property
    def prop(self):
        return 4
    @functools.cached_property
    def lazy(self):
        return 5
    @staticmethod
    def static():
        return 6
    @classmethod
    def of_class(cls):
        return 7

@dataclasses.dataclass(frozen=True)
class Point:
    x: int = 1
    y: list = dataclasses.field(default_factory=list)
    def norm(self):
        return self.x

class Row(msgspec.Struct, frozen=True):
    name: str = "a"
    size: int = 8

POINTS = (Point(1), Point(2))
ROWS = [Row("r", 9)]
CHECKS = {"first": (lambda text: "one" in text), "second": (lambda text: "two" in text)}

def helper(a, b=2, *, c=3):
    # a comment
    def inner(value):
        """An inner doc string."""
        return value + 10
    return inner(a) + b + c

@functools.cache
def cached(n):
    return n * 11

def even(n):
    return n == 0 or odd(n - 1)

def odd(n):
    return n != 0 and even(n - 1)

def risky(n):
    try:
        n = helper(n)
    except ValueError:
        n = 0
    return n

def action(job):
    """Do it."""
    box = Box()
    print(TABLE, WORDS, LONG, PLACE, Kind.ONE, POINTS, ROWS, CHECKS)
    return helper(1) + cached(2) + even(3) + risky(4) + Point().x + box.method() + Row().size
'''


def ident(text: str = BASE, entry: str = "action", **others: types.ModuleType) -> str:
    return code_id(module(text, "tasks.sample", **others).__dict__[entry])


def module(text: str, name: str, **others: types.ModuleType) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__dict__.update(others)
    sys.modules[name] = made  # dataclasses and msgspec look their module up
    try:
        exec(compile(text, f"/any/{name}.py", "exec"), made.__dict__)
    finally:
        del sys.modules[name]
    return made


def changed(old: str, new: str) -> str:
    assert BASE.count(old) == 1, old
    return BASE.replace(old, new)


def test_the_same_code_has_the_same_identity() -> None:
    assert ident() == ident()
    assert len(ident()) == 16


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    # a comment\n", ""),
        ("    # a comment\n", "\n\n\n    # another, lower down\n"),
        ('"""Do it."""', '"""Do it in another way, as the doc string says."""'),
        ('    """Do it."""\n', ""),
        ('"""An inner doc string."""', '"""Another inner doc string."""'),
        ('"""What it does."""', '"""What a method does."""'),
        ("class Kind(enum.Enum):", "class Unused:\n    x = 1\n\nclass Kind(enum.Enum):"),
        ("def odd(n):", "def unused(n):\n    return 99\n\ndef odd(n):"),
        ("def helper(a, b=2", "def helper(a: int, b: int = 2"),
    ],
)
def test_what_makes_no_difference(old: str, new: str) -> None:
    assert ident(changed(old, new)) == ident()


def test_neither_line_nor_place_makes_a_difference() -> None:
    assert ident("\n" * 50 + BASE) == ident()
    assert ident(BASE.replace('"gamma", "delta"', '"delta", "gamma"')) == ident()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("print(TABLE,", "repr((TABLE,) and"),
        ("helper(1)", "helper(8)"),  # a constant of the action itself
        ("value + 10", "value - 10"),  # code of a function in a function
        ("value + 10", "value + 12"),
        ("b=2", "b=20"),
        ("c=3", "c=30"),
        ("a, b=2, *, c=3", "a, b=2, c=3"),
        ("n * 11", "n * 12"),
        ("n == 0 or", "n == 8 or"),
        ('("-9", 1)', '("-9", 4)'),
        (
            '{"gzip": ("-9", 1), "xz": ("-6", 2)}',
            '{"xz": ("-6", 2), "gzip": ("-9", 1)}',
        ),  # the order of a table may count
        ('"alpha", ', '"alpha", "zeta", '),
        ('"@"', '"@" * 300'),
        ('"@"', '"@", re.DOTALL'),
        ("/nowhere/at/all", "/nowhere/at/last"),
        ("size = 3", "size = 33"),
        ("return self.size", "return -self.size"),
        ("        return 1\n", "        return 100\n"),  # of the base class
        ("        return 4\n", "        return 400\n"),
        ("        return 5\n", "        return 500\n"),
        ("        return 6\n", "        return 600\n"),
        ("        return 7\n", "        return 700\n"),
        ("x: int = 1", "x: int = 10"),
        ("default_factory=list", "default_factory=dict"),
        ("return self.x", "return self.x + 1"),
        ("Point(2)", "Point(3)"),
        ('Row("r", 9)', 'Row("r", 99)'),
        ('name: str = "a"', 'name: str = "b"'),
        ("size: int = 8", "size: bool = 8"),  # a struct's type decides how data is converted
        ("ONE = 1", "ONE = 2"),
        ('"one" in text', '"ONE" in text'),  # each of several lambdas in a table
        ('"two" in text', '"TWO" in text'),
        ("        n = 0\n", "        n = 1\n"),
        ("except ValueError", "except KeyError"),
    ],
)
def test_what_makes_a_difference(old: str, new: str) -> None:
    assert ident(changed(old, new)) != ident()


def test_a_constant_longer_than_any_repr_is_seen_to_its_end() -> None:
    assert ident(changed('"@"', repr("x" * 400 + "1"))) != ident(
        changed('"@"', repr("x" * 400 + "2"))
    )


def test_what_a_try_block_covers_counts() -> None:
    compiled = ident.__code__
    assert code._code_digest(compiled) == code._code_digest(compiled.replace())
    assert code._code_digest(compiled) != code._code_digest(
        compiled.replace(co_exceptiontable=b"\x01\x02\x03\x04")
    )


def test_another_modules_function_is_reached_through_the_module_or_by_name() -> None:
    def other(constant: int) -> types.ModuleType:
        return module(
            f"LIMIT = {constant}\ndef work():\n    return LIMIT\ndef unused():\n    return 5\n",
            "tasks.other",
        )

    by_module = "def action(job):\n    return other.work()\n"
    by_name = "work = other.work\ndef action(job):\n    return work()\n"
    for text in (by_module, by_name):
        assert ident(text, other=other(1)) == ident(text, other=other(1))
        assert ident(text, other=other(1)) != ident(text, other=other(2))
    constant = "def action(job):\n    return other.LIMIT\n"
    assert ident(constant, other=other(1)) != ident(constant, other=other(2))


def test_code_of_others_counts_by_name_only() -> None:
    text = "import os\nfrom os.path import {0}\ndef action(job):\n    return {0}('a')\n"
    assert ident(text.format("abspath")) != ident(text.format("realpath"))
    assert ident(
        "from os.path import abspath as f\ndef action(job):\n    return f('a')\n"
    ) != ident("from os.path import realpath as f\ndef action(job):\n    return f('a')\n")


def test_what_a_closure_and_a_partial_hold() -> None:
    closure = (
        "def make(n):\n    def action(job):\n        return n\n    return action\naction ="
        " make({})\n"
    )
    assert ident(closure.format(1)) != ident(closure.format(2))
    part = (
        "import functools\ndef f(n):\n    return n\nP = functools.partial(f, {})\ndef"
        " action(job):\n    return P()\n"
    )
    assert ident(part.format(1)) != ident(part.format(2))
    assert ident(part.format(1)) != ident(part.format(1).replace("return n\n", "return -n\n"))


def test_a_class_that_holds_itself_ends() -> None:
    text = (
        "class A:\n    def f(self):\n        return A()\n{}\nA.me = A\nA.all = [A, {{'a': A}}]\n"
        "def action(job):\n    return A\n"
    )
    assert ident(text.format("")) == ident(text.format("# x"))
    assert ident(text.format("")) != ident(text.format("A.more = 1"))


@pytest.fixture
def package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], None]]:
    """A project elsewhere, with the given files."""
    monkeypatch.setattr(code, "TOP", tmp_path)

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        code_id.cache_clear()
        code._node.cache_clear()

    yield write
    code_id.cache_clear()
    code._node.cache_clear()


@pytest.mark.parametrize(
    "line",
    [
        "from tasks.system.late import f",
        "from tasks.system import late",
        "import tasks.system.late",
        "from tasks.system import late as x",
    ],
)
def test_a_module_imported_in_the_function_counts_by_its_file(
    package: Callable[[str, str], None], line: str
) -> None:
    text = f"def action(job):\n    {line}\n"
    package("tasks/system/other.py", "x = 1\n")
    package("tasks/system/late.py", "x = 1\n")
    before = ident(text)
    package("tasks/system/other.py", "x = 2\n")
    assert ident(text) == before
    package("tasks/system/late.py", "x = 2\n")
    assert ident(text) != before


def test_a_file_of_the_project_counts_by_content_and_not_by_place(
    package: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from pathlib import Path\nRULES = Path({!r})\ndef action(job):\n    return RULES\n"
    package("tasks/system/link.mk", "one\n")
    package("elsewhere/tasks/system/link.mk", "one\n")
    here = ident(text.format(str(tmp_path / "tasks/system/link.mk")))
    monkeypatch.setattr(code, "TOP", tmp_path / "elsewhere")
    assert ident(text.format(str(tmp_path / "elsewhere/tasks/system/link.mk"))) == here
    monkeypatch.setattr(code, "TOP", tmp_path)
    package("tasks/system/link.mk", "two\n")
    assert ident(text.format(str(tmp_path / "tasks/system/link.mk"))) != here
    assert ident(text.format("/dev/null")) == ident(
        text.format("/dev/null")
    )  # a device is not read


def actions() -> dict[str, Any]:
    from tasks import busybox, host, image, kernel, kernel_config, qemu, rootfs, sources, toolchain
    from tasks.reports import settings

    loaded = project.load(TOP, {}, {})
    stages = (
        host,
        settings,
        sources,
        toolchain,
        kernel_config,
        kernel,
        image,
        busybox,
        rootfs,
        qemu,
    )
    return {
        task["basename"]: task["actions"][0][2]["work"].action
        for stage in stages
        for task in stage.tasks(loaded)
        if "actions" in task
    }


def test_every_action_of_the_graph_has_an_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TOP)
    code_id.cache_clear()
    code._node.cache_clear()
    found = actions()
    started = time.perf_counter()
    ids = {name: code_id(action) for name, action in found.items()}
    print(f"{len(ids)} identities in {(time.perf_counter() - started) * 1000:.1f} ms")
    assert len(ids) > 15
    assert ids["vmlinux"] != ids["busybox"] != ids["rootfs"]
    assert ids["Image"] == ids["piggy.gz"]  # one function, other arguments


def test_no_address_and_no_path_of_this_machine_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TOP)
    said: list[str] = []
    plain = code._text
    monkeypatch.setattr(code, "_text", lambda thing: said.append(plain(thing)) or said[-1])  # type: ignore[func-returns-value]
    code._node.cache_clear()
    for action in set(actions().values()):
        code_id.__wrapped__(action)
    code._node.cache_clear()
    assert len(said) > 1000
    assert not [text for text in said if " at 0x" in text]
    assert not [text for text in said if str(TOP) in text]


def test_processes_with_other_hash_seeds_agree() -> None:
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.unit.cache import test_code as t\nfrom tasks.cache.code import code_id\n"
        "print([(n, code_id(a)) for n, a in t.actions().items()], t.ident())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=TOP,
            env={**os.environ, "PYTHONHASHSEED": seed},
            text=True,
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "77")
    }
    assert len(said) == 1
    assert "vmlinux" in said.pop()


class Pair(NamedTuple):
    one: str


@dataclasses.dataclass
class Single:
    one: str


@pytest.mark.parametrize("kind", [Pair, Single])
def test_a_class_stays_what_it_is_when_msgspec_has_read_one(kind: type) -> None:
    """It puts what it knows of the class there, so the identity went by what had run before."""
    looked = code._node.__wrapped__
    before, attributes = looked(kind), {*vars(kind)}
    msgspec.json.decode(msgspec.json.encode(kind("x")), type=kind)
    assert {*vars(kind)} > attributes
    assert looked(kind) == before
