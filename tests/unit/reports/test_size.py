"""The text of sizes: trees, shares by Kconfig symbol, options and limits."""

from __future__ import annotations

import pytest

from tasks.graph.verdict import Exceeded
from tasks.reports import size_options, size_text
from tasks.system.errors import PiggyError
from tasks.tuning.image import Row

ROWS = [
    Row(0, 100, "kernel/panic.o", "panic", ".text", 40),
    Row(100, 50, "kernel/panic.o", "[.text]", ".text", 10),
    Row(150, 30, "kernel/sched/core.o", "schedule", ".text", 15),
    Row(180, 20, "net/socket.o", "sock", ".text", 9),
    Row(200, 4, "(alignment)", "[.text]", ".text", 1),
]


def test_a_tree_has_each_row_once_at_every_level() -> None:
    top = size_text.tree("Image", ROWS)
    assert (top.size, top.about) == (204, 75)
    for node in (top, top.at(["kernel"]), top.at(["kernel", "panic.o"])):
        assert node is not None
        assert sum(one.size for one in node.sorted()) == node.size
        assert sum(one.about for one in node.sorted()) == node.about
    assert top.at(["kernel", "sched", "core.o", "schedule"]) is not None
    assert top.at(["kernel", "nothing"]) is None
    lines = list(size_text.show(top, 1))
    assert [line.split()[:2] for line in lines] == [
        ["Image", "204"],
        ["kernel", "180"],
        ["net", "20"],
        ["(alignment)", "4"],
    ]


def test_what_is_left_out_has_a_line_of_its_own() -> None:
    rows = [Row(at, 10 - at, f"f{at}.o", "x", ".text", 0) for at in range(8)]
    lines = list(size_text.show(size_text.tree("Image", rows), 1, most=3))
    assert lines[-1].split() == ["and", "5", "more", str(7 + 6 + 5 + 4 + 3)]
    assert len(list(size_text.show(size_text.tree("Image", rows), 1, most=0))) == 9
    assert len(list(size_text.show(size_text.tree("Image", rows), 1, most=7))) == 9


def test_estimates_are_marked() -> None:
    rows = [
        Row(0, 10, "(setup.elf)/a.o", "x"),
        Row(10, 7, "(piggy.gz)/kernel/panic.o", "panic"),
    ]
    lines = list(size_text.show(size_text.tree("bzImage", rows), 2))
    assert not any("about" in line for line in lines if "kernel" not in line)
    assert next(line for line in lines if "kernel" in line).endswith("about 7")


def test_symbols_share_the_bytes_and_have_those_that_they_let_in() -> None:
    chains = {"net/socket.o": ["NET"], "kernel/sched/core.o": ["SCHED", "NET"]}
    shares = {
        one.symbol: one for one in size_text.by_config(ROWS, lambda path: chains.get(path, []))
    }
    assert sum(one.own for one in shares.values()) == 204
    assert sum(one.about for one in shares.values()) == 75
    assert (shares["NET"].own, shares["NET"].all, shares["NET"].objects) == (20, 50, 1)
    assert (shares["SCHED"].own, shares["SCHED"].all) == (30, 30)
    assert (shares[""].own, shares[""].all, shares[""].objects) == (154, 154, 1)


def test_options_may_follow_a_path() -> None:
    names, asked = size_options.asked(["kernel", "--depth", "3", "net", "--all"], {"limit": "5"})
    assert names == ["kernel", "net"]
    assert asked == size_options.Asked(limit="5", depth=3, whole=True)
    for words in (["--what"], ["--depth"]):
        with pytest.raises(PiggyError, match="doit size: "):
            size_options.asked(words, {})
    for number in ("x", "-1", "1.5", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 10, ""):
        with pytest.raises(PiggyError, match="--depth= takes a whole number, 0 or more"):
            size_options.asked([f"--depth={number}"], {})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["kernel", "--json"], "--json takes no path"),
        (["kernel", "--against=pc"], "and not about 'kernel'"),
        (["busybox", "kernel", "--against=pc"], "and not about 'kernel'"),
        (["busybox", "--against=pc", "--json"], "--json takes no path"),
        (["bussybox", "--against=pc"], "and not about 'bussybox'. Did you mean 'busybox'"),
        (["busybox", "--against=pc", "--depth=2"], "--depth does not go with --against"),
        (["kernel", "--symbols"], "--symbols takes no path"),
        (["kernel", "--history"], "--history takes no path"),
        (["--against=pc", "--symbols"], "--against does not go with --symbols"),
        (["--history", "--symbols"], "--history does not go with --symbols"),
        (["--depth=3", "--symbols"], "--depth does not go with --symbols"),
        (["--depth=2", "--history"], "--depth does not go with --history"),
        (["--limit=bzImage=1G,bzImage=1K"], "'bzImage' has two limits"),
    ],
)
def test_no_option_and_no_path_is_left_out_of_account(words: list[str], said: str) -> None:
    with pytest.raises(PiggyError, match=said):
        size_options.refuse(words)


def test_json_has_what_several_options_show() -> None:
    words = ["--json", "--history", "--against=pc", "--symbols"]
    assert size_options.asked(words, {})[1].as_json


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (",", "'' is no size"),
        ("900K,", "'' is no size"),
        ("bzImage=", "'' is no size"),
        ("=3M", "'=3M' names no image"),
        ("a=b=3M,5", ""),
    ],
)
def test_a_limit_that_is_empty_does_not_pass_for_none(text: str, said: str) -> None:
    if said:
        with pytest.raises(PiggyError, match=said):
            size_options.refuse([], limit=text)
    else:
        assert size_options._given(text) == {"a=b": 3 << 20, "": 5}


@pytest.mark.parametrize(
    ("text", "count"),
    [("900K", 921_600), ("900000", 900_000), ("1.5M", 1_572_864), (7, 7), ("900_000", 900_000)],
)
def test_sizes(text: int | str, count: int) -> None:
    assert size_options._bytes(str(text)) == count


@pytest.mark.parametrize("text", ["", "K", "-1", "1e9", "900k", "9" * 40, "_9", "9_"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(PiggyError, match="is no size"):
        size_options._bytes(text)


def test_limits_of_the_machine_count_for_what_is_built_and_those_of_the_option_win() -> None:
    files = {"vmlinux": 100, "bzImage": 50}
    limits = size_options.Limits
    size_options.check(files, limits({"bzImage": 50, "rootfs": 1}, {}))
    size_options.check(files, limits({"bzImage": 49}, {"bzImage": 50}))
    with pytest.raises(Exceeded, match="bzImage has 50 B, 1 B more than its limit of 49 B"):
        size_options.check(files, limits({"bzImage": 49}, {"vmlinux": 100}))
    for wrong, said in (
        (limits({}, {"bzImag": 1}), "no image 'bzImag' to limit. Did you mean 'bzImage'"),
        (limits({}, {"rootfs": 1}, "", ["rootfs"]), "rootfs has a limit, and is not built"),
        (limits({"zImage": 1}, {}, "zImage"), "zImage has a limit, and is not built"),
        (limits({"empty": 1}, {}), "empty has a limit, and is empty"),
    ):
        with pytest.raises(PiggyError, match=said) as caught:
            size_options.check({**files, "empty": 0}, wrong)
        assert not isinstance(caught.value, Exceeded)
