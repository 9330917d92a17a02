"""The report's page: what is in it, and that nothing in a name can be more than text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.graph.reason import Reason
from tasks.kconfig.origins import Origin
from tasks.reports import report, report_boot, report_page, report_sections, report_tree
from tasks.reports.report_facts import Facts, Step
from tasks.reports.report_page import Section
from tasks.reports.size_text import Share
from tasks.system.errors import PiggyError
from tasks.tuning.boot import Bar, Profile
from tasks.tuning.history import Point
from tasks.tuning.image import Row
from tasks.tuning.pieces import Piece
from tasks.tuning.sizes import FORMAT, Ram, Record

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;\u202e\udcff.o"
ROWS = [
    Row(0, 500, "(setup.elf)/a.o", "setup"),
    Row(500, 300, "(piggy.gz)/kernel/panic.o", "panic"),
    Row(800, 20, "(piggy.gz)/kernel/panic.o", "[.text]"),
    Row(820, 10, "(piggy.gz)/kernel/panic.o", "tiny"),
    Row(830, 90, f"(piggy.gz)/net/{EVIL}", EVIL),
]


def facts(**changes: Any) -> Facts:
    """The facts of a small build whose names are as bad as can be."""
    project = SimpleNamespace(
        settings=SimpleNamespace(machine=EVIL),
        layout=SimpleNamespace(kernel_src=Path("/src/linux"), busybox_src=Path("/src/busybox")),
    )
    record = Record(
        format=FORMAT,
        state="",
        time=0,
        commits=[],
        why="",
        files={"vmlinux": 2000, "bzImage": 920, "busybox": 77},
        config={"NET": "y", "PCI": "n", EVIL: f'"{EVIL}"'},
        pieces=[Piece(".text", 0, 320, "kernel/panic.o", "panic", "t", True)],
        raw=[],
        booted=ROWS,
        ram=Ram(700, 100, 50, 25, 125, 1000),
    )
    given: dict[str, Any] = {
        "project": project,
        "build": SimpleNamespace(image="bzImage", files={"vmlinux": "", "bzImage": ""}),
        "record": record,
        "notes": [EVIL],
        "made": 1_000_000.0,
        "kernel": [
            Step("vmlinux", "the kernel", 2000, "", 1.5),
            Step("bzImage", EVIL, 920, "vmlinux", None),
        ],
        "userspace": [],
        "trees": [report_tree.tree("bzImage", EVIL, ROWS, lambda path: [EVIL])],
        "points": [
            Point(time=1, sizes={"vmlinux": 1900, "bzImage": 900}),
            Point(
                time=2,
                sizes={"vmlinux": 2000, "bzImage": 920},
                changes=[Reason("note", f"CONFIG_{EVIL}", "n", EVIL, EVIL)],
                reasons=["/src/linux/kernel/panic.c changed"],
            ),
        ],
        "configuration": [
            Origin("NET", "y", "asked for", "net.config:2", "Networking", "net/Kconfig:5"),
            Origin("PCI", "n", "not asked for", "not asked for"),
            Origin(EVIL, f'"{EVIL}"', EVIL, EVIL, EVIL, EVIL),
        ],
        "shares": [Share("NET", 90, 120, 40, 3), Share("", 30, 30, 10, 1)],
        "guest": EVIL,
        "environment": {EVIL: [(EVIL, EVIL)], "empty": []},
        **changes,
    }
    return Facts(**given)


class Reader(HTMLParser):
    """The elements of a page with their attributes, its texts, and the content of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.texts.append(data)


@pytest.fixture(scope="module")
def page() -> str:
    return report_page.render(facts(boot=counted()), report_sections.SECTIONS)


def test_names_are_text_wherever_they_stand(page: str) -> None:
    page.encode()  # no lone surrogate is left
    reader = Reader(page)
    assert len(reader.scripts) == 3  # the data, plotly.js and the page's own
    assert not [tag for tag, _ in reader.elements if tag in ("img", "iframe", "object", "link")]
    assert not [
        (tag, name) for tag, attrs in reader.elements for name in attrs if name.startswith("on")
    ]
    shown = "".join(reader.texts)
    assert shown.count("<img src=x onerror=alert(2)>") > 10
    assert "\u202e" not in page
    assert "\\u202e" in shown
    assert "<" not in reader.scripts[0]
    assert EVIL[:20] in json.loads(reader.scripts[0])["where"][0]["title"]


def test_nothing_is_fetched_and_no_other_script_runs(page: str) -> None:
    reader = Reader(page)
    linked = [
        value
        for _, attrs in reader.elements
        for name, value in attrs.items()
        if name in ("src", "href", "action", "srcset", "data", "poster")
    ]
    assert linked
    assert [value for value in linked if not value.startswith("#")] == []
    own = page.replace(reader.scripts[1], "")
    assert re.findall(r"(?:https?|ftp|wss?):|@import|url\(", own) == []
    policy = next(
        attrs["content"]
        for tag, attrs in reader.elements
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in reader.scripts[1:]
    ]
    assert rules["script-src"] == " ".join(hashes)
    assert "connect-src" not in rules


def test_each_section_has_its_heading_and_a_link_to_it(page: str) -> None:
    reader = Reader(page)
    names = [attrs["id"] for tag, attrs in reader.elements if tag == "section"]
    assert names == [make.__name__ for make in report_sections.SECTIONS]
    links = [attrs["href"] for tag, attrs in reader.elements if tag == "a"]
    assert links == ["#overview", *(f"#{name}" for name in names)]
    ids = [attrs["id"] for _, attrs in reader.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_a_further_section_is_a_function(page: str) -> None:
    def boot(facts: Facts) -> Section:
        return Section("boot", "The boot", report_page.Markup("<p>here</p>"), {"x": [1]})

    def nothing(facts: Facts) -> None:
        return None

    reader = Reader(report_page.render(facts(), [boot, nothing]))
    assert [attrs["id"] for tag, attrs in reader.elements if tag == "section"] == ["boot"]
    assert json.loads(reader.scripts[0]) == {"boot": {"x": [1]}}


def test_the_figures_of_the_sections() -> None:
    one = facts()
    words = " ".join(" ".join(Reader(report_sections.overview(one).html).texts).split())
    assert "bzImage 920 B +20" in words
    assert "in memory 875" in words
    assert "symbols 1 of" in words
    words = " ".join(" ".join(Reader(report_sections.memory(one).html).texts).split())
    assert "text 700" in words
    assert "brk 1,000" in words
    assert "after the boot 875" in words
    words = " ".join(" ".join(Reader(report_sections.chain(one).html).texts).split())
    assert "vmlinux 2,000 B took 1.5 s" in words
    assert "920 B from vmlinux" in words
    made = report_sections.history(one)
    assert made.data["charts"][0] == {"name": "bzImage", "sizes": [900, 920]}
    assert made.data["changes"][1][1] == "kernel/panic.c changed"
    words = " ".join(" ".join(Reader(made.html).texts).split())
    assert "920 +20 2,000 +100" in words
    rows = re.findall(r'data-own="(\d+)" data-all="(\d+)"', report_sections.configuration(one).html)
    assert rows == [("90", "120"), ("0", "0"), ("0", "0")]


def test_one_build_makes_no_chart() -> None:
    one = facts(points=[Point(time=1, sizes={"vmlinux": 2000, "bzImage": 920})])
    html = report_sections.history(one).html
    assert "history-chart" not in html
    assert "one build so far" in html


def test_a_tree_adds_up_and_its_smallest_parts_are_one() -> None:
    symbols = {"kernel/panic.o": ["PANIC", "KERNEL"], "a.o": ["NONE"]}
    tree = report_tree.tree("bzImage", "", ROWS, lambda path: symbols.get(path, []))
    assert tree.sizes[0] == sum(row.size for row in ROWS)
    for at, size in enumerate(tree.sizes):
        below = [one for number, one in enumerate(tree.sizes) if tree.parents[number] == at]
        assert not below or sum(below) == size
    assert all(parent < at for at, parent in enumerate(tree.parents))
    at = tree.labels.index("panic.o")
    assert tree.symbols == {at: "PANIC"}
    assert "(2 smaller than 64 B)" in tree.labels
    assert "tiny" not in tree.labels
    assert [tree.labels[one] for one in tree.estimated] == ["(piggy.gz)"]


def test_the_images_that_can_be_taken_apart_have_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged() -> list[Row]:
        raise PiggyError("busybox is damaged")

    rows = {"Image": lambda: ROWS, "busybox": damaged, "applets": damaged}
    monkeypatch.setattr(report_tree.size, "rows_of", lambda *_: rows)
    build: Any = SimpleNamespace(image="Image", raw="Image")  # a board that unpacks nothing
    one = facts()
    trees, notes = report_tree.all_of(one.project, build, one.record, lambda path: [])
    assert [tree.name for tree in trees] == ["Image", report_tree.MEMORY]
    assert trees[1].sizes[0] == 320
    assert notes == ["busybox is not taken apart: busybox is damaged"]


def test_a_library_that_is_missing_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "LIBRARIES", ("jinja2", "plotly_that_is_not_there"))
    with pytest.raises(PiggyError, match="takes plotly_that_is_not_there") as caught:
        report.report(SimpleNamespace(project=None), [])  # type: ignore[arg-type]
    assert caught.value.hint == "pip install -e '.[report]'"


def test_the_libraries_are_loaded_by_the_report_alone() -> None:
    """The task's module loads neither, nor what gathers the facts."""
    script = "import sys; import tasks.reports.report; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "tasks.reports.report" in loaded
    assert loaded.isdisjoint({"jinja2", "plotly", "markupsafe", "tasks.reports.report_facts"})


def counted(**changes: Any) -> Profile:
    """A counted boot with names as bad as can be."""
    bars = (
        Bar("phase", EVIL, 0, 0, 900_000, bytes=12),
        Bar("initcall", EVIL, 1, 10, 500_000, 3, 2, object=EVIL, symbol=EVIL, reason=f"{EVIL}:1"),
        Bar("program", "tiny", 1, 20, 10),
        Bar("phase", "shell", 0, 900_000, 100_000),
    )
    given = {"machine": "pc", "state": "", "instructions": 1_000_000, "milliseconds": 7, "bytes": 1}
    return Profile(**{**given, "bars": bars, "notes": (EVIL,), **changes})


def test_the_boot_is_drawn_bar_by_bar() -> None:
    section = report_boot.boot(facts(boot=counted()))
    assert section is not None
    assert [one["name"] for one in section.data] == [EVIL, EVIL, "shell"]
    assert [one["start"] + one["count"] for one in section.data] == pytest.approx([0.9, 0.50001, 1])
    assert section.data[1]["why"].endswith(":1")
    assert "1 of less than a thousandth" in section.html
    assert "<script" not in section.html
    assert "<img" not in section.html


def test_two_boots_are_drawn_bar_by_bar() -> None:
    """Of bars with one name, the first is held against the first; what is gone is drawn, too."""
    bars = (
        Bar("phase", "start", 0, 0, 400_000),
        Bar("initcall", "gone_init", 1, 10, 300_000),
        Bar("phase", "shell", 0, 400_000, 100_000),
        Bar("phase", "shell", 0, 500_000, 300_000),
    )
    old = counted(bars=bars, instructions=800_000)
    section = report_boot.boot(facts(boot=counted(), before=old))
    assert section is not None
    told = {
        one["name"]: (one["count"], one["before"] and one["before"]["count"])
        for one in section.data
        if one["name"] in ("start", "gone_init")
    }
    assert told == {"start": (None, 0.4), "gone_init": (None, 0.3)}
    assert [(one["count"], one["before"]) for one in section.data if one["name"] == "shell"] == [
        (None, {"start": 0.5, "count": 0.3}),
        (0.1, {"start": 0.4, "count": 0.1}),
    ]
    assert "800,000 in the one before" in section.html
    assert "-300,000" in section.html


@pytest.mark.parametrize("profile", [None, counted(instructions=0)])
def test_no_boot_was_counted(profile: Profile | None) -> None:
    assert report_boot.boot(facts(boot=profile)) is None
