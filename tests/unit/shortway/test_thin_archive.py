"""Thin archives renewed in place: byte for byte what ar makes, or left alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.shortway import thin_archive

HOUR = 3600 * 10**9


class Box:
    """A folder with objects and the three kinds of archives that Kbuild has: of objects, of
    archives, with symbols."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.asked: list[str] = []
        for folder in ("a", "a/deep", "b"):
            (top / folder).mkdir()
        self.names = [
            "a/one.o",
            "a/quite-a-long-name-of-an-object.o",
            "a/deep/two.o",
            "b/exactly-15-char.o",
            "b/4.o",
        ]
        for number, name in enumerate(self.names):
            self.compile(
                name,
                f"int f{number}(void) {{ return {number}; }} static int s{number}"
                " __attribute__((used));",
            )
        self.archives = {
            "a/deep/built-in.a": (
                "rm -f a/deep/built-in.a; printf 'a/deep/%s ' two.o | xargs ar cDPrST"
                " a/deep/built-in.a"
            ),
            "a/built-in.a": (
                "rm -f a/built-in.a; ar cDPrST a/built-in.a a/one.o"
                " a/quite-a-long-name-of-an-object.o a/deep/built-in.a"
            ),
            "b/lib.a": "rm -f b/lib.a; ar cDPrsT b/lib.a b/exactly-15-char.o b/4.o",
            "built-in.a": "rm -f built-in.a; ar cDPrST built-in.a a/built-in.a b/lib.a",
            "vmlinux.a": (
                "rm -f vmlinux.a; ar cDPrST vmlinux.a ./built-in.a; "
                "ar mPiT $(ar t vmlinux.a | sed -n 1p) vmlinux.a $(ar t vmlinux.a | grep -F 4.o)"
            ),
        }
        self.by_ar()

    def compile(self, name: str, code: str) -> None:
        subprocess.run(
            ["gcc", "-xc", "-c", "-", "-o", name], input=code, text=True, cwd=self.top, check=True
        )

    def by_ar(self) -> dict[str, bytes]:
        """Make all archives by ar, older than they are."""
        for number, (name, command) in enumerate(self.archives.items()):
            subprocess.run(["sh", "-ec", command], cwd=self.top, check=True)
            self.age(name, number)
        for name in self.names:
            self.age(name, -1)
        return self.content()

    def age(self, name: str, rank: int) -> None:
        when = os.stat(self.top / name).st_mtime_ns - HOUR + rank * 10**9
        os.utime(self.top / name, ns=(when, when))

    def content(self) -> dict[str, bytes]:
        return {name: (self.top / name).read_bytes() for name in self.archives}

    def symbols(self, objects: Sequence[str]) -> list[list[bytes]]:
        self.asked += objects
        return [
            subprocess.run(
                ["nm", "-g", "-p", "-j", "--defined-only", name],
                cwd=self.top,
                capture_output=True,
                check=True,
            ).stdout.split()
            for name in objects
        ]

    def renew(self, name: str) -> bool:
        return thin_archive.renew(str(self.top / name), str(self.top), self.symbols)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@pytest.mark.parametrize("number", range(5))
def test_a_member_of_another_size(box: Box, number: int) -> None:
    before = box.content()
    box.compile(
        box.names[number],
        f"int f{number}(void) {{ return 7; }} static int s{number}[5] __attribute__((used)) = {{ 1,"
        " 2, 3 };",
    )
    for name in box.archives:
        assert box.renew(name)
    found = box.content()
    assert found == box.by_ar()
    assert found["vmlinux.a"] != before["vmlinux.a"]
    assert set(box.asked) == {box.names[number]}


def test_several_members(box: Box) -> None:
    for number, name in enumerate(box.names):
        box.compile(name, f"int f{number}(void) {{ return {number} + f{number}(); }}")
    assert all(box.renew(name) for name in box.archives)
    assert box.content() == box.by_ar()


def test_it_gets_the_time_of_now(box: Box) -> None:
    box.compile("b/4.o", "int f4(void) { return 8; }")
    assert box.renew("built-in.a")
    assert os.stat(box.top / "built-in.a").st_mtime_ns >= os.stat(box.top / "b/4.o").st_mtime_ns


@pytest.mark.parametrize(
    "code",
    [
        "int f4(void) { return 1; } int more;",
        "int f4(void) { return 1; } int even__;",
        "int other;",
        "static int f4;",
        "__attribute__((weak)) int more; int f4(void) { return 2; }",
        "__attribute__((common)) int shared; int f4(void) { return shared; }",
        'asm(".globl five; five = 5"); __attribute__((visibility("hidden"))) int f4(void) {}',
        'int z, a, m; int f4(void) {} extern int g4(void) __attribute__((alias("f4")));',
        (
            'static int g(void) {} extern int f4(void) __attribute__((ifunc("r")));'
            " static void *r(void) { return g; }"
        ),
        "\n".join(f"int many{number}[{number + 1}];" for number in range(500)),
    ],
)
def test_other_symbols(box: Box, code: str) -> None:
    before = box.content()
    box.compile("b/4.o", code)
    assert all(box.renew(name) for name in box.archives)
    found = box.content()
    assert found == box.by_ar()
    assert found["vmlinux.a"] != before["vmlinux.a"]


def test_a_table_as_no_ar_of_ours_writes_it_is_for_ar(box: Box) -> None:
    archive = box.top / "b/lib.a"
    good = archive.read_bytes()
    size = int(good[8:][48:58])
    padded = good[: 68 + size] + b"\0\0" + good[68 + size :]
    odd = padded.replace(b"%-10d`" % size, b"%-10d`" % (size + 2), 1)
    assert odd != padded
    archive.write_bytes(odd)
    box.age("b/lib.a", 0)
    box.compile("b/4.o", "int f4(void) { return 8; }")
    assert not box.renew("b/lib.a")
    assert archive.read_bytes() == odd


def test_no_symbol_at_all_is_for_ar(box: Box) -> None:
    for name in ("b/4.o", "b/exactly-15-char.o"):
        box.compile(name, "")
    assert not box.renew("b/lib.a")


def test_symbols_that_nobody_can_tell(box: Box) -> None:
    box.compile("b/4.o", "int f4(void) { return 8; }")
    assert not thin_archive.renew(str(box.top / "vmlinux.a"), str(box.top), lambda names: None)


def test_many_members_are_for_ar(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thin_archive, "MOST_MEMBERS", 1)
    box.compile("b/4.o", "int f4(void) { return 8; }")
    assert box.renew("vmlinux.a")
    box.by_ar()
    for name in ("b/4.o", "a/one.o"):
        os.utime(box.top / name)
    assert not box.renew("vmlinux.a")
    assert box.renew("built-in.a")


def test_what_is_odd_is_left_alone(box: Box) -> None:
    archive = box.top / "vmlinux.a"
    good = archive.read_bytes()
    for bad in (
        b"",
        b"!<arch>\n",
        good[:100],
        good[:-1],
        good[:-30],
        good.replace(b"`\n", b"`?", 1),
        good + b"x" * 60,
        good.replace(b"/0 ", b"x/ "),
        good.replace(b"one.o/\n", b"gone.o/"),
        thin_archive.MAGIC + b"x" * 60,
    ):
        archive.write_bytes(bad)
        box.age("vmlinux.a", 0)
        assert not box.renew("vmlinux.a")
        assert archive.read_bytes() == bad
    archive.unlink()
    assert not box.renew("vmlinux.a")


def test_a_member_that_is_gone_or_that_has_another_size_for_long(box: Box) -> None:
    (box.top / "b/4.o").unlink()
    assert not box.renew("built-in.a")
    box.compile("b/4.o", "int f4(void) { return 8; } int big[100] = { 1 };")
    box.age("b/4.o", -1)
    assert not box.renew("built-in.a")
