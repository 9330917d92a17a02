from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.system.errors import PiggyError
from tasks.system.process import CommandError
from tasks.toolchains import sdk

GCC = """\
#!/bin/sh
here=$(dirname "$0")
case $1 in
--version) echo "odd-gcc 14";;
-dumpmachine) echo odd-linux;;
-print-prog-name=*) echo "$here/odd-linux-${1#*=}";;
-print-file-name=*) echo "$here/../lib/${1#*=}";;
esac
"""
RELOCATE = '#!/bin/sh\ncd "$(dirname "$0")" && pwd > share/buildroot/sdk-location\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A toolchain as Buildroot leaves it."""
    made = tmp_path / "host"
    for name, text, mode in (
        ("bin/odd-linux-gcc", GCC, 0o755),
        ("bin/odd-linux-as", "#!/bin/sh\n", 0o755),
        ("bin/odd-linux-ld", "#!/bin/sh\n", 0o755),
        ("bin/odd-linux-cc1", "", 0o755),
        ("lib/libgcc.a", "ar", 0o644),
        ("relocate-sdk.sh", RELOCATE, 0o755),
        ("share/buildroot/sdk-location", "/built/here\n", 0o644),
    ):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
        (made / name).chmod(mode)
    (made / "bin" / "odd-gcc").symlink_to("odd-linux-gcc")
    return made


def install(tmp_path: Path, archive: Path) -> Path:
    project: Any = SimpleNamespace(
        layout=SimpleNamespace(toolchains=tmp_path / "build" / "toolchains")
    )
    return sdk.install(
        project, archive, hashlib.sha256(archive.read_bytes()).hexdigest(), tmp_path / "log"
    )


def test_packed_unpacked_and_relocated(tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "sdk.tar.gz"
    sdk.pack(folder, "odd_sdk", archive, tmp_path / "log")
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        assert all(name == "odd_sdk" or name.startswith("odd_sdk/") for name in names)
        assert tar.getmember("odd_sdk/bin/odd-gcc").linkname == "odd-linux-gcc"
    place = install(tmp_path, archive)
    assert place.parent == tmp_path / "build" / "toolchains"
    assert (place / sdk.LOCATION).read_text().strip() == str(place)
    assert sdk.misplaced(place) == ""
    assert sdk.misplaced(folder) == "/built/here"
    elsewhere = archive.rename(tmp_path / "other-name.tar.gz")
    (place / "mark").touch()
    assert install(tmp_path, elsewhere) == place  # the same content is not unpacked again
    assert (place / "mark").exists()
    (place / "bin" / "odd-linux-gcc").write_text("#!/bin/sh\n")
    assert install(tmp_path, elsewhere) == place  # a spoilt toolchain is unpacked again
    assert not (place / "mark").exists()


def test_links_of_both_kinds(tmp_path: Path, folder: Path) -> None:
    """In Buildroot's toolchains gcc.br_real is a hard link, and c++ is a symbolic link."""
    os.link(folder / "lib" / "libgcc.a", folder / "bin" / "second-name")
    (folder / "bin" / "c++").symlink_to("./g++")
    (folder / "bin" / "g++").write_text("#!/bin/sh\n")
    archive = tmp_path / "sdk.tar.gz"
    sdk.pack(folder, "odd_sdk", archive, tmp_path / "log")
    place = install(tmp_path, archive)
    assert os.path.samefile(place / "bin" / "second-name", place / "lib" / "libgcc.a")
    assert os.readlink(place / "bin" / "c++") == "./g++"


def test_packing_gives_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    for name in ("a.tar.gz", "b.tar.gz"):
        sdk.pack(folder, "odd_sdk", tmp_path / name, tmp_path / "log")
        (folder / "lib" / "libgcc.a").touch()
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_nothing_half_done_stays(tmp_path: Path, folder: Path) -> None:
    (folder / "relocate-sdk.sh").write_text("#!/bin/sh\nexit 3\n")
    archive = tmp_path / "sdk.tar.gz"
    sdk.pack(folder, "odd_sdk", archive, tmp_path / "log")
    with pytest.raises(CommandError, match="ended with status 3"):
        install(tmp_path, archive)
    assert [
        path.name
        for path in (tmp_path / "build" / "toolchains").iterdir()
        if not path.name.startswith(".")
    ] == []


def test_no_toolchain_in_it(tmp_path: Path) -> None:
    (tmp_path / "empty" / "bin").mkdir(parents=True)
    archive = tmp_path / "sdk.tar.gz"
    sdk.pack(tmp_path / "empty", "odd_sdk", archive, tmp_path / "log")
    with pytest.raises(PiggyError, match="holds no cross compiler"):
        install(tmp_path, archive)


def test_what_is_a_tarball() -> None:
    assert sdk.is_tarball("/x/sdk.tar.gz")
    assert sdk.is_tarball(Path("arm.tar.xz"))
    assert not sdk.is_tarball("/opt/x/bin/arm-linux-")


@pytest.mark.parametrize("kind", ["pipe", "folder", "no UTF-8", "NUL", "missing"])
def test_a_location_that_is_none(tmp_path: Path, kind: str) -> None:
    note = tmp_path / sdk.LOCATION
    note.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(note)
    elif kind == "folder":
        note.mkdir()
    elif kind != "missing":
        note.write_bytes(b"\xff" if kind == "no UTF-8" else b"/a\0b")
    assert sdk.misplaced(tmp_path) == ""
    if kind == "missing":
        note.write_text("/built\x1b[2J\n")
        assert sdk.misplaced(tmp_path) == "/built\\x1b[2J"
