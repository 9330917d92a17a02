"""The floppy: its file system, and its boot loader in a PC, with a kernel that sums itself up."""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from tasks.filesystem import floppy
from tasks.system.errors import PiggyError

FAT_TOOLS = ("mdir", "mcopy", "fsck.fat", "blkid")
TOOLS = ("gcc", "mke2fs", "debugfs", "e2fsck", "qemu-system-i386")
SOURCE = Path(__file__).parents[2] / "support" / "fake_kernel.S"
SECONDS = 120
UUID, EPOCH, SETUP = "70696767-7962-4163-8b00-000000000009", 1767225600, 0x600
LINK = "-Wl,-Ttext=0,--oformat=binary,-e,_start,--build-id=none"

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in TOOLS), reason=f"needs {', '.join(TOOLS)}"
)


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return floppy.assemble("gcc", tmp_path_factory.mktemp("loader"))


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    made = tmp_path_factory.mktemp("stub") / "stub"
    words = ["gcc", "-m32", "-nostdlib", "-static", LINK, "-o", str(made), str(SOURCE)]
    subprocess.run(words, check=True)
    return made.read_bytes()


def kernel_of(stub: bytes, length: int, seed: int = 1, zeros: int = 0) -> tuple[bytes, str]:
    """Return a kernel, whose protected-mode part has a length, and what it says of itself."""
    body = bytearray(stub + random.Random(seed).randbytes(length - len(stub) + SETUP))
    body[-zeros:] = bytes(zeros) or body[-zeros:]
    struct.pack_into("<I", body, SETUP + 4, length)
    return bytes(body), f"{sum(body[SETUP:]) & 0xFFFFFFFF:08x}"


def boot(image: Path, *drive: str, until: str = "") -> str:
    """Return what a PC says on COM1 that boots the image, until it resets or has said `until`."""
    words = drive or ("-drive", f"file={image},format=raw,if=floppy")
    argv = ["qemu-system-i386", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]
    said = b""
    with subprocess.Popen([*argv, "-m", "4", *words], stdout=subprocess.PIPE) as qemu:
        assert qemu.stdout is not None
        late = threading.Timer(SECONDS, qemu.kill)
        late.start()
        while piece := os.read(qemu.stdout.fileno(), 4096):
            said += piece
            if until and until.encode() in said:
                break
        late.cancel()
        qemu.kill()
    return said.decode()


def mtools(
    tool: str, image: Path, *words: str, status: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [tool, "-i", str(image), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done
    return done


def debugfs(image: Path, *commands: str) -> None:
    script = "".join(f"{command}\n" for command in commands)
    subprocess.run(["debugfs", "-w", "-f", "-", str(image)], input=script, text=True, check=True)


def test_the_same_twice_and_sound(tmp_path: Path, loader: bytes, stub: bytes) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(kernel_of(stub, 200_000)[0])
    one, other = tmp_path / "one.img", tmp_path / "other.img"
    for image in (one, other):
        stats = floppy.build(loader, kernel, "a b", image, uuid=UUID, epoch=EPOCH)
    assert one.read_bytes() == other.read_bytes()
    assert one.stat().st_size == floppy.SIZE
    data = one.read_bytes()[:1024]
    assert data[:3] + data[62:] == loader[:3] + loader[62:]
    assert stats.bytes_free > floppy.SIZE - 200_000 - 100_000
    subprocess.run(["e2fsck", "-fn", str(one)], check=True)
    debugfs(one, f"dump /bzImage {tmp_path}/got", f"dump /cmdline {tmp_path}/words")
    assert (tmp_path / "got").read_bytes() == kernel.read_bytes()
    assert (tmp_path / "words").read_text() == "a b\n"


@pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in FAT_TOOLS), reason=f"needs {', '.join(FAT_TOOLS)}"
)
def test_dos_sees_the_same_files(tmp_path: Path, loader: bytes, stub: bytes) -> None:
    """Those with blocks of zeros, too; and it finds no room that ext2 has."""
    kernel, image = tmp_path / "kernel", tmp_path / "floppy.img"
    kernel.write_bytes(kernel_of(stub, 700_000, zeros=5000)[0])
    floppy.build(loader, kernel, "a b", image, uuid=UUID, epoch=EPOCH)
    checked = subprocess.run(
        ["fsck.fat", "-vn", image], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    assert "3 files, 1406/1406 clusters" in checked  # one is the label
    words = ["blkid", "-p", "-o", "value", "-s", "TYPE", str(image)]
    known = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    assert known.stdout == "ext2\n"  # so `mount` and desktops take it for that
    before = image.read_bytes()
    listed = mtools("mdir", image).stdout
    assert re.search(r"BZIMAGE +701 ?536 2026-01-01", listed), listed
    assert re.search(r"CMDLINE +4 2026-01-01", listed)
    assert " 0 bytes free" in listed
    mtools("mcopy", image, "::BZIMAGE", "::CMDLINE", str(tmp_path))
    assert (tmp_path / "BZIMAGE").read_bytes() == kernel.read_bytes()
    assert (tmp_path / "CMDLINE").read_text() == "a b\n"
    (tmp_path / "new").write_text("x")
    assert "full" in mtools("mcopy", image, str(tmp_path / "new"), "::", status=1).stderr
    assert image.read_bytes() == before
    subprocess.run(["e2fsck", "-fn", str(image)], check=True)


@pytest.mark.parametrize(
    ("length", "zeros"),
    [(3000, 0), (11_700, 0), (300_000, 0), (1_330_000, 0), (20_000, 4096)],
    ids=["direct", "to the last direct block", "doubly indirect", "full", "with holes"],
)
def test_the_loader_starts_what_is_on_the_floppy(
    tmp_path: Path, loader: bytes, stub: bytes, length: int, zeros: int
) -> None:
    body, said = kernel_of(stub, length, zeros=zeros)
    (tmp_path / "kernel").write_bytes(body)
    image = tmp_path / "floppy.img"
    floppy.build(loader, tmp_path / "kernel", "root=/x  y ", image, uuid=UUID, epoch=EPOCH)
    answer = boot(image)
    assert answer.startswith("Piggyback .")
    assert answer.endswith(f"root=/x  y {said}")


def test_files_that_were_put_there_later(tmp_path: Path, loader: bytes, stub: bytes) -> None:
    """Another kernel, in pieces, behind other names in the directory; two lines of words."""
    first, _ = kernel_of(stub, 100_000)
    second, said = kernel_of(stub, 250_000, seed=2)
    (tmp_path / "kernel").write_bytes(first)
    image = tmp_path / "floppy.img"
    floppy.build(loader, tmp_path / "kernel", "old", image, uuid=UUID, epoch=EPOCH)
    (tmp_path / "small").write_bytes(b"x" * 3000)
    (tmp_path / "kernel").write_bytes(second)
    (tmp_path / "words").write_text("new\nwords\n\n")
    pieces = [f"write {tmp_path}/small a_file_with_a_longer_name_{number}" for number in range(60)]
    holes = [f"rm a_file_with_a_longer_name_{number}" for number in range(0, 60, 2)]
    debugfs(image, *pieces, *holes, "rm bzImage", "rm cmdline", "mkdir cmdlines")
    debugfs(image, f"write {tmp_path}/kernel bzImage", f"write {tmp_path}/words cmdline")
    assert boot(image).endswith(f"new\nwords{said}")
    debugfs(image, "rm cmdline")
    assert boot(image).endswith(f".{said}")


@pytest.mark.parametrize("bus", ["ide-hd", "usb-storage"])
def test_written_to_another_disk(tmp_path: Path, loader: bytes, stub: bytes, bus: str) -> None:
    body, said = kernel_of(stub, 300_000)
    (tmp_path / "kernel").write_bytes(body)
    image = tmp_path / "floppy.img"
    floppy.build(loader, tmp_path / "kernel", "x", image, uuid=UUID, epoch=EPOCH)
    with image.open("r+b") as stream:  # a stick of 8 MB
        stream.truncate(8 << 20)
    drive = ["-drive", f"file={image},format=raw,if=none,id=stick", "-device", f"{bus},drive=stick"]
    answer = boot(image, *(["-device", "piix3-usb-uhci"] if bus == "usb-storage" else []), *drive)
    assert answer.endswith(f"x{said}")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (["rm bzImage"], "no /bzImage: press a key"),
        (["rm bzImage", "write {text} bzImage"], "/bzImage is no kernel: press a key"),
    ],
)
def test_the_loader_says_what_is_wrong(
    tmp_path: Path, loader: bytes, stub: bytes, spoil: list[str], said: str
) -> None:
    (tmp_path / "kernel").write_bytes(kernel_of(stub, 3000)[0])
    (tmp_path / "text").write_text("no kernel\n")
    image = tmp_path / "floppy.img"
    floppy.build(loader, tmp_path / "kernel", "x", image, uuid=UUID, epoch=EPOCH)
    debugfs(image, *(command.format(text=tmp_path / "text") for command in spoil))
    assert said in boot(image, until=said)


@pytest.mark.parametrize(
    ("version", "where", "size", "starts"),
    [
        (0x20F, 1 << 20, (3 << 20) - (256 << 10), True),  # what the BIOS keeps aside
        (0x20F, 1 << 20, (3 << 20) + 4096, False),
        (0x20F, 16 << 20, 4096, False),
        (0x209, 16 << 20, 4096, True),
    ],
    ids=["what there is", "a page more", "beyond", "older than init_size"],
)
def test_a_kernel_that_needs_more_memory_is_not_started(
    tmp_path: Path,
    loader: bytes,
    stub: bytes,
    version: int,
    where: int,
    size: int,
    starts: bool,
) -> None:
    """It could not say so itself, as it unpacks itself before it has a console."""
    body, said = kernel_of(stub, 3000)
    head = bytearray(body)
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<QI", head, 0x258, where, size)
    (tmp_path / "kernel").write_bytes(head)
    image = tmp_path / "floppy.img"
    floppy.build(loader, tmp_path / "kernel", "x", image, uuid=UUID, epoch=EPOCH)
    answer = boot(image, until=": press a key")
    assert answer.endswith(f"x{said}") == starts, answer
    assert ("too little memory: press a key" in answer) != starts, answer


def test_what_can_not_be_on_a_floppy(tmp_path: Path, loader: bytes, stub: bytes) -> None:
    image, kernel = tmp_path / "floppy.img", tmp_path / "kernel"

    def refused(words: str = "x") -> str:
        with pytest.raises(PiggyError) as caught:
            floppy.build(loader, kernel, words, image, uuid=UUID, epoch=EPOCH)
        assert not image.exists()
        return caught.value.message

    kernel.write_bytes(b"\x7fELF" + bytes(3000))
    assert "is no bzImage" in refused()
    kernel.write_bytes(b"")
    assert "is no bzImage" in refused()
    kernel.write_bytes(kernel_of(stub, floppy.ROOM - SETUP)[0])
    assert not floppy.build(loader, kernel, "x", image, uuid=UUID, epoch=EPOCH).bytes_free
    image.unlink()
    for size in (floppy.ROOM + 1, 1_501_536):
        kernel.write_bytes(kernel_of(stub, size - SETUP)[0])
        assert f"has {size:,} bytes, and on a floppy of 1,474,560 there is room for" in refused()
    kernel.write_bytes(kernel_of(stub, 3000)[0])
    assert "the floppy's boot loader takes 1023" in refused("x" * 1024)
