"""Slots, rows, keys and estimates; tests/graph/test_price.py makes trials."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tasks import kernel_config
from tasks.config import project as projects
from tasks.config.project import Project
from tasks.graph import history
from tasks.guest.marks import Marks
from tasks.kconfig import fragments
from tasks.reports import price, price_text
from tasks.reports.price_text import Priced
from tasks.system.errors import PiggyError
from tasks.tuning import count, pace, row, trial
from tasks.tuning.boot_points import Point, Points
from tasks.tuning.row import Row
from tasks.tuning.sizes import Ram
from tasks.tuning.slot import Slot

TOP = Path(__file__).parents[3]
BASE = Row(
    change={},
    config={"A": "y", "B": "y", "SHIFT": "12"},
    files={"vmlinux": 1000, "Image": 900, "bzImage": 500},
    ram=Ram(500, 100, 50, 20, 80),
    objects=10,
    booted=True,
    passed=True,
    instructions=1_000_000,
)
OFF = Row(
    change={"A": "n"},
    config={"SHIFT": "13", "C": "m"},
    files={"vmlinux": 900, "Image": 850, "bzImage": 460},
    ram=Ram(450, 100, 40, 20, 70),
    objects=8,
    booted=True,
    passed=False,
    failed=["disk", "nic"],
    said="the guest booted, but failed",
    instructions=990_000,
)
ON = Row(change={"D": "y"}, config={**BASE.config, "D": "y"}, files=BASE.files, ram=BASE.ram)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(TOP)
    build = {"build": str(tmp_path / "build"), "fragments": "xz?", "jobs": "3"}
    return projects.load(TOP, {}, build)


def test_a_trial_has_all_requests_as_optional_and_its_change_last(project: Project) -> None:
    slot = Slot(project, 1)
    slot.prepare()
    assert "fragments" in slot.words({})
    assert slot.words({})["fragments"] == "xz?"
    slot.change({"PRINTK": "n", "HZ_250": "y"})
    its = slot.project({"PRINTK": "n", "HZ_250": "y"})
    *others, last = its.named_fragments.items()
    assert last == (slot.folder / "change.config", False)
    assert all(optional for _, optional in others)
    assert Path("configs/kernel/base.config") in its.named_fragments
    merged = fragments.merge(its.fragments, its.optional_fragments).requests
    assert [(one.value, one.optional) for one in (merged["PRINTK"], merged["EXT2_FS"])] == [
        ("n", False),
        ("y", True),
    ]
    assert list(merged)[-2:] == ["PRINTK", "HZ_250"]
    assert its.settings.jobs == 0
    assert its.layout.build == slot.folder
    assert its.layout.store == project.layout.store
    assert its.layout.toolchains == project.layout.toolchains.resolve()
    assert (kernel_config.stored(its), kernel_config.stored(project)) == (False, True)


def test_a_trial_has_the_settings_that_come_with_a_preset(project: Project) -> None:
    words = {"fragments": "fast", "devices": "devices"}
    fast = projects.load(TOP, {}, {"build": str(project.layout.build), **words})
    slot = Slot(fast, 1)
    slot.prepare()
    for change in ({}, {"PRINTK": "n"}):
        its = slot.project(change)
        for name in ("firmware", "boot", "initramfs", "busybox_fragments", "devices"):
            assert getattr(its.settings, name) == getattr(fast.settings, name), name
    assert its.settings.firmware
    assert its.settings.devices == "devices"


def test_a_slot_shares_sources_and_leaves_what_is_not_its_own_alone(project: Project) -> None:
    slot = Slot(project, 2)
    slot.prepare()
    assert (slot.folder / "src").samefile(project.layout.build / "src")
    (slot.folder / "src").unlink()
    (slot.folder / "src").symlink_to("elsewhere")
    slot.prepare()
    assert (slot.folder / "src").samefile(project.layout.build / "src")
    (slot.folder / "src").unlink()
    (slot.folder / "src").mkdir()
    with pytest.raises(PiggyError, match="is in the way"):
        slot.prepare()


def test_the_own_fragment_may_stand_elsewhere_than_last(tmp_path: Path) -> None:
    own, other = tmp_path / "own.config", tmp_path / "other.config"
    own.touch()
    assert fragments.present([other], own) == (other, own)
    assert fragments.present([own, other], own) == (own, other)
    assert fragments.present([other], tmp_path / "none") == (other,)


def test_what_fell_and_rose_is_all_but_the_change_itself() -> None:
    assert OFF.differences(BASE) == {"B": ("y", "n"), "SHIFT": ("12", "13"), "C": ("n", "m")}
    assert price_text.fell(Priced("A", OFF, BASE)) == "+C, -B, SHIFT=13"


def test_a_cost_is_with_it_less_without_it() -> None:
    off, on = Priced("A", OFF, BASE), Priced("D", ON, BASE)
    assert off.files() == {"vmlinux": 100, "Image": 50, "bzImage": 40}
    assert off.memory() == {
        "kept": 60, "text": 50, "rodata": 0, "data": 10, "bss": 0, "init": 10, "brk": 0
    }  # fmt: skip
    assert off.objects() == 2
    larger = msgspec.structs.replace(ON, files={**BASE.files, "bzImage": 510}, objects=11)
    assert Priced("D", larger, BASE).files()["bzImage"] == 10
    assert Priced("D", larger, BASE).objects() == 1
    assert set(on.files().values()) == {0}


def test_the_table_is_sorted_by_the_booted_image_and_what_is_not_built_comes_last() -> None:
    broken = Row(change={"E": "n"}, error="vmlinux failed: x.c:1: error")
    rows = [Priced("E", broken, BASE), Priced("D", ON, BASE), Priced("A", OFF, BASE)]
    assert [one.name for one in price_text.ordered(rows, "bytes")] == ["A", "D", "E"]
    assert [one.name for one in price_text.ordered(rows, "name")] == ["A", "D", "E"]
    lines = list(price_text.table(BASE, price_text.ordered(rows, "bytes"), {"F": "why"}, 2))
    assert lines[1].split() == [
        "A", "40", "50", "100", "60", "10,000", "2", "off",
        "fails:", "disk,", "nic", "+C,", "-B,", "SHIFT=13",
    ]  # fmt: skip
    assert lines[2].split()[5] == "-"
    assert lines[3].split()[1:7] == ["-"] * 6
    assert "not built: vmlinux failed" in lines[3]
    assert "  F  why" in lines
    assert lines[-1].startswith("and 2 that are on have no prompt")


def test_where_instructions_are_not_counted_the_table_says_why() -> None:
    bare = msgspec.structs.replace(BASE, instructions=None)
    (on,) = (Priced("D", ON, bare),)
    plain = list(price_text.table(bare, [on], {}, 0))
    assert "instructions" not in plain[0]
    disk = list(price_text.table(bare, [on], {}, 0, "a disk answers"))
    assert "instructions" in disk[0]
    assert disk[1].split()[5] == "-"
    assert disk[-1] == "instructions are not counted: a disk answers"
    lost = msgspec.structs.replace(ON, uncounted="the guest fell silent")
    one = list(price_text.table(BASE, [Priced("D", lost, BASE)], {}, 0))
    assert "instructions 1,000,000" in one[-2]
    assert one[-1].startswith("instructions of D are not counted: the guest fell silent")


def test_a_row_of_before_the_count_is_read(project: Project) -> None:
    old = msgspec.to_builtins(BASE)
    del old["instructions"], old["uncounted"]
    found = msgspec.json.decode(msgspec.json.encode(old), type=Row)
    assert found == msgspec.structs.replace(BASE, instructions=None)
    trials = trial.Trials(project)
    trials.count = True
    assert trials._countable(found)
    trials.count = False
    assert not trials._countable(found)


@pytest.mark.parametrize("name", ["words", "change"])
def test_a_row_is_not_taken_from_before_what_a_slot_builds_was_mended(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mended, known = getattr(Slot, name), project.codes.of
    before = trial._build_codes(project)
    assert trial._build_codes(project) == before
    monkeypatch.setattr(project.codes, "of", lambda one: "" if one is mended else known(one))
    assert trial._build_codes(project) != before


def test_only_what_is_exact_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TOP)
    said = {
        words: count.why_not(projects.load(TOP, {}, dict(word.split("=") for word in words)))
        for words in (
            ("machine=pc",),
            ("machine=pc", "boot=initramfs"),
            ("machine=floppy",),
            ("machine=microvm", "boot=initramfs"),
            ("machine=microvm", "boot=initramfs", "net=none"),
        )
    }
    assert [bool(why) for why in said.values()] == [True, False, False, True, False]


def test_a_failed_count_is_a_row_with_a_reason(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(_: Project) -> int:
        raise PiggyError("the guest fell silent")

    bare = msgspec.structs.replace(BASE, instructions=None)
    monkeypatch.setattr(row.count, "total", lambda _: 5)
    assert row.counted(project, bare).instructions == 5
    monkeypatch.setattr(row.count, "total", silent)
    found = row.counted(project, bare)
    assert (found.instructions, found.uncounted) == (None, "the guest fell silent")


def test_the_boot_is_halted_where_the_shell_waits_alone() -> None:
    at = {1: Point("part", "init"), 2: Point("tty", "n_tty_read"), 3: Point("initcall", "x")}
    points = Points(at, Marks((1, 2), (3,), (7, 9)), 4, "<", 5)
    found = count.shell(points)
    assert (found.at, found.marks) == ({2: at[2]}, Marks((2,)))


def test_there_are_not_more_slots_than_the_processors_serve() -> None:
    assert price._asked(["A"], {"slots": 2})[1].slots == 2
    for number in (0, -1, 2000):
        with pytest.raises(PiggyError, match=f"-n {number}: from 1 to"):
            price._asked(["A"], {"slots": number})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "passes"),
        ({"passed": None, "booted": None}, "built"),
        ({"passed": False, "booted": False, "said": "panic"}, "does not boot: panic"),
        ({"passed": False, "said": "no poweroff"}, "fails: no poweroff"),
        ({"passed": False, "failed": ["disk"], "said": "x"}, "fails: disk"),
    ],
)
def test_a_verdict_in_words(change: dict, said: str) -> None:
    assert price_text.verdict(msgspec.structs.replace(BASE, **change)) == said


def test_a_row_is_read_as_it_was_written() -> None:
    assert msgspec.json.decode(msgspec.json.encode(OFF), type=Row) == OFF


def test_the_verdict_of_a_boot_is_from_its_record(project: Project) -> None:
    project.layout.boot_record.parent.mkdir(parents=True)
    found = row.booted(project, BASE, "no shell answered")
    assert (found.booted, found.passed, found.said) == (False, False, "no shell answered")
    project.layout.boot_record.write_text(json.dumps({"ready": 1.5, "failed": ["nic"]}))
    found = row.booted(project, BASE, "1 of 7")
    assert (found.booted, found.passed, found.failed, found.ready) == (True, False, ["nic"], 1.5)


def test_the_links_up_to_the_booted_one(project: Project) -> None:
    assert row.links(project) == [
        "vmlinux", "Image", "piggy.gz", "piggy.o", "compressed_vmlinux", "bzImage"
    ]  # fmt: skip


def test_generated_files_and_symbols_are_no_sources(project: Project, tmp_path: Path) -> None:
    own = project.layout.build / "x.h"
    found = row.sources(
        project,
        {
            "vmlinux": {"discovered": {"/tree/a.c": "1", str(own): "2", "CONFIG_A": "y"}},
            "kernel_config": {"discovered": {"/tree/Kconfig": "3"}},
            "busybox": {"discovered": {"/tree/b.c": "4"}},
        },
    )
    assert found == {"/tree/a.c": "1", "/tree/Kconfig": "3"}


def test_an_estimate_is_made_of_the_trials_before(project: Project) -> None:
    known = pace.Pace(project, [])
    changes = [{"A": "n"}, {"B": "n"}, {"C": "n"}]
    first = known.estimate(changes, 1)
    assert first >= 3 * pace.FIRST
    for took in (5.0, 6.0, 70.0):
        known.learn({"A": "n"}, took)
    path = project.layout.here / "trials" / "history.jsonl"
    assert len(history.read(path)) == 3
    assert known.estimate(changes, 1) < first
    assert known.estimate(changes, 2) < known.estimate(changes, 1)


def test_whatever_goes_wrong_in_a_trial_ends_all(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise IndexError("index out of range")

    monkeypatch.setattr(trial.Trials, "_try", damaged)
    found: list[BaseException] = []

    def run() -> None:
        try:
            list(trial.Trials(project).run([{"A": "n"}]))
        except IndexError as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert found


def test_a_slot_keeps_its_share_of_the_processors_between_two_trials(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a make in another slot takes it, and this one waits until all is compiled there."""
    held: list[bytes | None] = []

    def tried(self: trial.Trials, slot: Slot, change: Any) -> tuple[Row, dict[str, str]]:
        held.append(self.project.jobs._mine.token)
        return Row(change=dict(change), error="not built"), {}

    monkeypatch.setattr(trial.Trials, "_try", tried)
    changes = [{name: "n"} for name in "ABC"]
    assert [row.change for row in trial.Trials(project).run(changes)] == changes
    assert len(held) == 3
    assert None not in held


def test_a_second_boot_that_says_nothing_of_the_kernel_is_no_verdict(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial.journal, "records", lambda path: {})
    monkeypatch.setattr(trial.rows, "measured", lambda its, row: row)
    record = project.layout.boot_record
    record.parent.mkdir(parents=True)

    def tried(second: str, shell: bool = True) -> Row:
        said = iter(["qemu_test failed: 1 of 7", second])

        def run(*_: object) -> tuple[int, list[str]]:
            if shell:
                record.write_text(json.dumps({"ready": 1.5, "failed": ["nic"]}))
            line = next(said)
            if not line:
                record.write_text(json.dumps({"ready": 1.5, "failed": []}))
            return bool(line), [line]

        slot: Any = SimpleNamespace(project=lambda change: project, run=run)
        trials = trial.Trials(project)
        trials.boot = True
        return trials._try(slot, {"A": "n"})[0]

    assert tried("qemu_test failed: 1 of 7").failed == ["nic"]
    lost = tried("ERROR: the disk is full")
    assert (lost.built, lost.passed, lost.error) == (False, None, "the disk is full")
    late = tried("", shell=False)
    assert (late.booted, late.passed, late.failed) == (True, True, [])
    dead = tried("qemu_test failed: no shell", shell=False)
    assert (dead.booted, dead.passed, dead.said) == (False, False, "no shell")
