"""The report of the PC's real kernel, in a real browser: wide, on a telephone, and by keyboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from browser import Browser

from tests.real.conftest import Checkout

pytestmark = pytest.mark.real

# What is clicked and typed; the names are those of the page's elements.
LOOK = """
  view.alert = () => violations.push("alert");
  const texts = (row) => [...row.cells].map((one) => one.textContent);
  const rows = () => $$("#where-rows tr").map(texts);
  const found = {ready: page.documentElement.dataset.ready, tiles: $$("#where-map g.slice").length};
  found.first = rows();
  $("#where-controls input[value='1']").click(); await wait(800);
  found.raw = rows();
  const button = (name) => $$("#where-rows button").find((one) => one.textContent === name);
  button("kernel").focus(); button("kernel").click(); await wait(300);
  found.kernel = rows();
  found.path = $("#where-path").textContent;
  found.focus = page.activeElement.textContent;
  found.titles = $$("#where-map g.slicetext text").map((one) => one.textContent);
  const tile = $$("#where-map g.slice path")[1], box = tile.getBoundingClientRect();
  const place = {bubbles: true, clientX: box.x, clientY: box.y};
  tile.dispatchEvent(new view.MouseEvent("mouseover", place));
  await wait(400);
  found.hover = $$("#where-map .hoverlayer text").map((one) => one.textContent).join(" ");
  const type = (name, text) => {
    const field = $(name);
    field.value = text;
    field.dispatchEvent(new view.Event("input", {bubbles: true}));
  };
  type("#where-find", "panic.o");
  found.searched = rows();
  const shown = () => $$("#configuration-table tbody tr").filter((row) => !row.hidden);
  found.on = shown().length;
  type("#configuration-find", "CONFIG_NE2K");
  found.card = shown().map(texts);
  type("#configuration-find", "");
  $("#configuration-table th button").click();
  found.sorted = shown().slice(0, 3).map((row) => row.cells[0].querySelector("code").textContent);
  found.wide = page.documentElement.scrollWidth;
  const drawn = (one) => Number(one.querySelector("svg").getAttribute("width"));
  found.charts = $$(".chart").map((one) => [one.clientWidth, drawn(one)]);
  return found;
"""


def number(text: str) -> int:
    return int(text.removeprefix("about ").replace(",", ""))


def looked_at(page: Path, folder: Path, width: int, height: int) -> dict[str, Any]:
    """What a browser of that width shows, after checks that hold for every width."""
    found = Browser(folder).drive(page, LOOK, width, height)
    assert found.get("error") is None
    assert found["ready"] == "1"
    assert found["violations"] == []
    assert {*found["asked"]} <= {"/frame.html", "/page.html", "/favicon.ico"}
    assert found["wide"] <= width  # nothing sticks out
    assert all(abs(inside - drawn) <= 1 for inside, drawn in found["charts"])  # parts of a pixel
    image = pytest.importorskip("PIL.Image")
    with image.open(found["picture"]) as opened:
        assert opened.size[0] >= width
        assert len(opened.convert("RGB").getcolors(1 << 24)) > 200  # a treemap, no blank page
    return found


def test_the_page_in_a_browser_has_the_figures_of_size(pc: Checkout, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    pc.doit("report", f"--out={page}")
    sizes = json.loads(pc.doit("size", "--json"))
    assert 5_000_000 < page.stat().st_size < 12_000_000
    assert page.stat().st_mode & 0o777 == 0o666 & ~pc.umask
    found = looked_at(page, tmp_path, 1400, 3000)
    assert found["tiles"] > 50
    assert sum(number(row[1]) for row in found["first"]) == sizes["files"]["bzImage"]
    assert sum(number(row[1]) for row in found["raw"]) == sizes["files"]["Image"]
    rows = [row for row in sizes["raw"]["rows"] if row["object"].startswith("kernel/")]
    assert sum(number(row[1]) for row in found["kernel"]) == sum(row["size"] for row in rows)
    assert sum(number(row[3]) for row in found["kernel"] if row[3]) == sum(
        row["about"] for row in rows
    )
    assert found["path"] == "Imagekernel"
    assert found["focus"] == found["kernel"][0][0]
    assert "kernel" in found["titles"]
    assert "kernel/" in found["hover"]
    assert "compressed about" in found["hover"]
    assert found["searched"][0][0] == "kernel/panic.o"
    assert 300 < found["on"] < 800
    card = {
        row[0].removesuffix("PCI NE2000 and clones support (see help)"): row
        for row in found["card"]
    }
    assert 1 <= len(card) < 10  # others name it as their reason
    assert card["NE2K_PCI"][1:3] == ["y", "configs/kernel/ne2k-pci.config:4"]
    assert number(card["NE2K_PCI"][3]) > 5_000
    assert found["sorted"] == sorted(found["sorted"])


def test_the_page_on_a_telephone(pc: Checkout, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    pc.doit("report", f"--out={page}")
    looked_at(page, tmp_path, 420, 3000)
