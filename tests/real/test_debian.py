"""README's first command, as written, on a bare Debian 12 and 13; then the unit and graph tests
there.

Each takes a folder of 3 GB, some ten minutes and the package archive. As a newcomer's machine has
none of the project's packages, this shows what is missing from the lists; without upstream in
reach, where the distribution has the sources.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real import chroot
from tests.real.chroot import HOME, Chroot

TOP = Path(__file__).resolve().parents[2]
RELEASES = ("bookworm", "trixie")
VERSIONS = (
    "python3 --version",
    "i686-linux-gnu-gcc --version",
    "make --version",
    "qemu-system-i386 --version",
    "mke2fs -V",
)
pytestmark = [pytest.mark.real, pytest.mark.long]


def first_command() -> str:
    """README's first command."""
    found = re.search(
        r"^```sh\n(.*?)^```$", (TOP / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert found, "README.md shows no command"
    return found[1].strip()


@pytest.fixture(scope="module", params=RELEASES)
def debian(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chroot]:
    why = chroot.why_not()
    if why:
        pytest.skip(why)
    place = tmp_path_factory.mktemp(request.param)
    try:
        made = Chroot(place / "root", request.param)
        made.copy_checkout(TOP)
        yield made
    finally:
        shutil.rmtree(place / "root", ignore_errors=True)


def test_the_first_command_builds_and_boots(debian: Chroot, tmp_path: Path) -> None:
    """Without a terminal qemu_boot tests the guest. Both releases get the same kernel series and
    the same busybox."""
    started = time.monotonic()
    status, said = debian.run(first_command(), tmp_path / "first.log")
    assert status == 0, said[-5000:]
    print(
        f"{debian.release}: {time.monotonic() - started:.0f} s; "
        + "; ".join(map(debian.version, VERSIONS))
    )
    assert {"shell", "uname", "mount", "disk", "nic", "poweroff"} <= set(
        re.findall(r"^=== (\w+) ok", said, re.MULTILINE)
    )
    dl = debian.root / HOME.lstrip("/") / "dl"
    records = {
        name: json.loads((dl / f"{name}.json").read_text())
        for name in ("linux-6.1", "busybox", "musl")
    }
    assert records["linux-6.1"]["version"].startswith("6.1.")
    assert (records["busybox"]["version"], records["musl"]["version"]) == ("1.35.0", "1.2.3")
    status, said = debian.run(
        ".venv/bin/doit && echo again && .venv/bin/doit", tmp_path / "second.log"
    )
    assert status == 0, said
    assert re.search(
        r"^again\n  FRESH +nothing to do: \d+ tasks up to date \([^\n]*\)\n\Z", said, re.MULTILINE
    ), said


def test_the_unit_and_graph_tests_pass(debian: Chroot, tmp_path: Path) -> None:
    if not (debian.root / HOME.lstrip("/") / ".venv").exists():
        pytest.skip("the first command did not come as far")
    more = "git gnupg iproute2 nftables strace"  # without them tests are skipped
    tests = (
        f"apt-get install -q -y --no-install-recommends {more} && .venv/bin/pip install -q -e"
        " '.[test]' && .venv/bin/pytest -q -n 2 tests/unit tests/graph"
    )
    status, said = debian.run(tests, tmp_path / "tests.log", timeout=5400)
    print(f"{debian.release}: {said.rstrip().splitlines()[-1]}")
    assert status == 0, said[-5000:]
