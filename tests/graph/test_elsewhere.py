"""Another checkout, elsewhere, by somebody else, gives the same images bit by bit."""

from __future__ import annotations

from pathlib import Path

import playground
from playground import Kept, Playground

OTHERS = {
    "TZ": "Asia/Tokyo",
    "LC_ALL": "C.UTF-8",
    "LANG": "tr_TR.UTF-8",
    "USER": "somebody",
    "LOGNAME": "somebody",
    "KBUILD_BUILD_USER": "somebody",
    "KBUILD_BUILD_TIMESTAMP": "now",
    "LOCALVERSION": "-mine",
    "MAKEFLAGS": "-k -n",
    "CFLAGS": "-O0 -g",
    "KCFLAGS": "-O0 -g",
    "LDFLAGS": "-s",
    "CROSS_COMPILE": "no-",
    "ARCH": "arm",
    "O": "/nowhere",
    "KCONFIG_ALLCONFIG": "/nowhere",
    "KCONFIG_CONFIG": "/nowhere",
    "SOURCE_DATE_EPOCH": "1",
    "GZIP": "-1",
    "XZ_OPT": "-0",
    "C_INCLUDE_PATH": "/nowhere",
    "MAKEFILES": "/nowhere",
    "PYTHONHASHSEED": "7",
}


def test_same_images(kept: Kept, tmp_path: Path, triple: str) -> None:
    play = Playground(
        tmp_path / "a" / "longer" / "path" / "to" / "it", tmp_path / "another-home", umask=0o077
    )
    play.home.mkdir()
    playground.lay_out(play.top, triple, umask=0o077)
    play.doit("jobs=1", **OTHERS)
    assert play.digests() == kept.digests
    assert play.doit().ran == []  # without all that, which is no input


def test_build_and_downloads_elsewhere(fresh: Playground, kept: Kept, tmp_path: Path) -> None:
    """Through symbolic links, as to another disk; and by the settings."""
    (tmp_path / "disk").mkdir()
    (fresh.top / "build").symlink_to(tmp_path / "disk")
    fresh.doit()
    assert fresh.digests() == kept.digests
    assert fresh.doit().ran == []
    fresh.append(fresh.linux / "kernel/panic.c", "/* more */\n")
    assert fresh.doit().ran == ["vmlinux"]
    (fresh.top / "dl").rename(tmp_path / "archives")
    words = [f"build={tmp_path}/build", f"dl={tmp_path}/archives"]
    fresh.doit(*words)
    assert (tmp_path / "build/fake/images/bzImage").read_bytes() == (
        fresh.images / "bzImage"
    ).read_bytes()
    assert "nothing to do" in fresh.doit(*words).text
    assert not (fresh.top / "dl").exists()


def test_moved(built: Playground, kept: Kept, tmp_path: Path) -> None:
    """The whole project in another place: absolute paths in what was built do not mislead."""
    moved = Playground(tmp_path / "moved", built.home)
    playground.copy(built.top, moved.top)
    built.top.rename(tmp_path / "gone")
    moved.doit()
    assert moved.digests() == kept.digests
    moved.doit()  # writes anew what it knows of the archives, which here are copies with new times
    assert moved.doit().ran == []
    moved.edit(moved.linux / "kernel/panic.c", "printk(why)", "printk(why + 1)")
    assert "bzImage" in moved.doit().ran
