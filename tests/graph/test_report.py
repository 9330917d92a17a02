"""`doit report` on the fake kernel."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from playground import Playground


def data_of(page: str) -> dict[str, Any]:
    """The data for the page's script."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert match
    found: dict[str, Any] = json.loads(match[1])
    return found


def symbols(page: str) -> dict[str, str]:
    """The rows of the configuration's table, as texts, by symbol."""
    rows = re.findall(r"<tr data-kind=.*?<code>(\w+)</code>(.*?)</tr>", page)
    return {name: re.sub(r"<[^>]+>", " ", rest) for name, rest in rows}


def test_the_page_has_the_figures_of_size_and_nothing_is_built(built: Playground) -> None:
    sizes = json.loads(built.doit("size", "--json").text)
    built.append("configs/kernel/fake-serial.config", "CONFIG_LOG_BUF_SHIFT=15\n")
    seen = (built.images / "vmlinux").stat().st_mtime_ns
    said = built.doit("report").text
    assert "bzImage is not up to date" in said
    path = built.here / "report.html"
    assert f"build/fake/report.html  ({path.stat().st_size:,} B)" in said
    assert (built.images / "vmlinux").stat().st_mtime_ns == seen
    page = path.read_text()
    assert "is not up to date" in page
    trees = {tree["name"]: tree for tree in data_of(page)["where"]}
    for name, kind in (("bzImage", "booted"), ("Image", "raw")):
        rows = sum(row["size"] for row in sizes[kind]["rows"])
        assert trees[name]["sizes"][0] == rows == sizes["files"][name]
    assert trees["rootfs"]["sizes"][0] == sizes["files"]["rootfs"]
    assert "busybox is not taken apart: there is no" in page  # the fake one has no map
    memory = trees["vmlinux in memory"]
    assert memory["sizes"][0] == sum(
        count for kind, count in sizes["ram"].items() if kind != "guest"
    )
    at = trees["Image"]["labels"].index("panic.o")
    assert trees["Image"]["labels"][trees["Image"]["parents"][at]] == "kernel"
    table = symbols(page)
    assert "configs/kernel/fake-serial.config:3" in table["SERIAL_8250_CONSOLE"]
    assert 'id="history-chart"' not in page  # one build


def test_a_symbol_that_was_flipped_stands_beside_its_build(built: Playground) -> None:
    built.append("configs/kernel/fake-serial.config", "CONFIG_LOG_BUF_SHIFT=15\n")
    built.doit()
    out = built.home / "r.html"
    for word, said in (("", "--out= has no value"), (f"{out}/x", "there is no folder")):
        assert said in built.doit("report", f"--out={word}", status=3).text
    built.doit("report", f"--out={out}", "--out", str(out))
    data = data_of(out.read_text())["history"]
    assert data["changes"][-1][0] == (
        "CONFIG_LOG_BUF_SHIFT 14 -> 15 (configs/kernel/fake-serial.config:4)"
    )
    assert data["short"] == ["", "LOG_BUF_SHIFT=15"]
    assert data["charts"][0]["name"] == "bzImage"
    assert data["charts"][0]["sizes"][-1] == (built.images / "bzImage").stat().st_size
    assert not (built.here / "report.html").exists()


def test_where_there_is_nothing_to_report_on(fresh: Playground) -> None:
    assert "is not built yet" in fresh.doit("report", status=1).text
    assert not (fresh.here / "report.html").exists()
    assert not Path(fresh.here / "logs" / "report.log").exists()
