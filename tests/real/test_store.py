"""Going back on the PC's real kernel: what comes back is what was there, and what is made after it
is what make makes."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.conftest import Checkout, edited

pytestmark = pytest.mark.real
LINKS = ["vmlinux", "Image", "piggy.gz", "piggy.o", "compressed_vmlinux", "bzImage"]


@pytest.fixture
def store(pc: Checkout) -> Iterator[Checkout]:
    """The PC with a store of its own."""
    pc.env["PIGGYBACK_STORE_SIZE"] = "1G"
    for image in pc.images.iterdir():
        if image.name in (*LINKS, "config"):
            image.unlink()
    pc.doit()  # so that the store has them
    yield pc
    del pc.env["PIGGYBACK_STORE_SIZE"]
    pc.doit()


def digests(pc: Checkout) -> dict[str, str]:
    names = [*LINKS, "System.map", "config", "miniconfig", "rootfs.ext2"]
    return {name: hashlib.sha256((pc.images / name).read_bytes()).hexdigest() for name in names}


def back(pc: Checkout) -> list[str]:
    """Run doit, which must have all that it brings from the store; return which."""
    said = pc.doit()
    assert not re.search(r"^  (?:vmlinux|Image|piggy|kernel_config|bzImage) ", said, re.MULTILINE)
    return re.findall(r"^  store +(\S+) ", said, re.MULTILINE)


def test_there_and_back(store: Checkout, plain: Path, tmp_path: Path) -> None:
    """A symbol and a branch of the sources; then an edit, of the kernel and of a link alone."""
    pc, second = store, Path(shutil.copytree(plain, tmp_path / "obj", symlinks=True))
    first = digests(pc)
    own = pc.top / "configs" / "kernel" / "local" / "pc.config"
    own.parent.mkdir(exist_ok=True)
    own.write_text("CONFIG_MAGIC_SYSRQ=y\nCONFIG_IKCONFIG=y\n")
    pc.doit()
    other = digests(pc)
    assert other != first
    own.unlink()
    assert back(pc) == ["kernel_config", *LINKS]
    assert digests(pc) == first
    own.write_text("CONFIG_MAGIC_SYSRQ=y\nCONFIG_IKCONFIG=y\n")
    assert back(pc) == ["kernel_config", *LINKS]
    assert digests(pc) == other
    own.unlink()
    back(pc)
    # the object folder still has the other configuration
    with edited(
        pc.kernel / "arch/x86/boot/compressed/misc.c", "inappropriately aligned", "badly aligned"
    ):
        assert pc.ran() == ["compressed_vmlinux", "bzImage"]
        assert pc.made_otherwise(second, "bzImage") == []
    assert back(pc) == ["compressed_vmlinux", "bzImage"]
    own.write_text("CONFIG_MAGIC_SYSRQ=y\nCONFIG_IKCONFIG=y\n")
    back(pc)
    with edited(
        pc.kernel / "kernel/panic.c",
        "Kernel panic - not syncing: %s",
        "Kernel panic - not  syncing: %s",
    ):
        assert pc.ran() == LINKS
        assert pc.made_otherwise(second, "bzImage") == []
    assert back(pc) == LINKS
    assert digests(pc) == other
    own.unlink()
    assert back(pc) == ["kernel_config", *LINKS]
    assert digests(pc) == first
    assert "nothing to do" in pc.doit()
