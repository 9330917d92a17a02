"""What the root file system refuses, and what it says of an overlay."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from playground import Playground


def test_what_does_not_land_as_it_lies_there_is_said_once(
    built: Playground, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    (mine / "etc").mkdir(parents=True)
    for name, mode in (("shadow", 0o600), ("key", 0o700), ("shared", 0o664), ("shared~", 0o644)):
        (mine / "etc" / name).touch()
        (mine / "etc" / name).chmod(mode)
    mine.chmod(0o700)
    (mine / "etc").chmod(0o700)
    subprocess.run(["git", "init", "-q", mine], check=True)
    result = built.doit(f"overlays={mine}", "rootfs", "initramfs")
    assert result.ran == ["rootfs", "initramfs"]
    notes = [
        line.split(None, 1)[1] for line in result.text.splitlines() if line.split()[0] == "note"
    ]
    assert notes == [
        (
            f"overlay {mine}: left out, as files of version control and of editors are: .git,"
            " etc/shared~"
        ),
        f"overlay {mine}: modes narrowed, since only the owner may write: /etc/shared (664 -> 644)",
    ]
    shown = subprocess.run(
        ["debugfs", "-R", "ls -p /etc", built.images / "rootfs.ext2"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"},
    ).stdout
    modes = {line.split("/")[5]: line.split("/")[2] for line in shown.splitlines() if line}
    assert {name: modes[name] for name in (".", "shadow", "key", "shared")} == {
        ".": "040700",
        "shadow": "100600",
        "key": "100700",
        "shared": "100644",
    }
    assert "shared~" not in modes


def test_line_ends_of_windows(built: Playground) -> None:
    built.edit("overlays/fake/etc/init.d/rcS", "\n", "\r\n")
    said = built.fails("rootfs")
    assert "overlay overlays/fake: 'etc/init.d/rcS' has the line ends of Windows (CRLF)" in said
    assert "sed -i 's/\\r$//'" in said


def test_no_init(built: Playground) -> None:
    """Without busybox's INIT both images are refused; what init= or rdinit= names is taken in its
    place."""
    built.append("configs/busybox/fake.config", "# CONFIG_INIT is not set\n")
    for task, wanted in (
        ("rootfs", "/sbin/init, /etc/init, /bin/init (at last for /bin/sh)"),
        ("initramfs", "/init, /sbin/init"),
    ):
        said = built.fails(task)
        assert (
            f"no init in the root file system: the kernel looks for {wanted}, and there is none"
            in said
        )
        assert "CONFIG_INIT=y" in said
    assert built.doit("append=init=/bin/sh rdinit=/bin/sh", "rootfs", "initramfs").ran == [
        "rootfs",
        "initramfs",
    ]
    assert "the kernel is told init=/bin/no, and there is no such file" in built.fails(
        "append=init=/bin/no", "rootfs"
    )


def test_sizes_that_no_image_may_have_are_refused_at_once(fresh: Playground) -> None:
    for name, value in (("rootfs_free", 10**12), ("rootfs_size", 10**18)):
        said = fresh.fails(f"{name}={value}", "rootfs")
        assert (
            f"command line: setting '{name}' takes a whole number from 0 to 33554432, not '{value}'"
            in said
        )
        assert "KiB" in said
        assert "up to 32 GiB" in said
    assert not fresh.here.exists()


def test_a_file_that_no_image_can_hold_is_not_read_first(built: Playground) -> None:
    big = built.top / "overlays/fake/big"
    built.limit = 15  # to read it takes minutes
    try:
        for task, size, most in (("rootfs", 20 << 30, "16 GiB"), ("initramfs", 15 << 30, "4 GiB")):
            big.touch()
            os.truncate(big, size)
            said = built.fails(task)
            assert f"/big has {size} bytes" in said, said
            assert most in said
    finally:
        built.limit = 60


def test_what_a_guest_wrote_is_kept_aside_or_goes_on(built: Playground) -> None:
    disk = built.images / "rootfs.ext2"
    made = disk.read_bytes()
    written = made[:-9] + b"by guests"
    disk.write_bytes(written)
    assert built.doit("snapshot=no", "rootfs").ran == []
    assert disk.read_bytes() == written
    said = built.doit("rootfs").text
    assert f"what was written to it is kept as {disk.relative_to(built.top)}.1" in said
    assert disk.read_bytes() == made
    assert Path(f"{disk}.1").read_bytes() == written


def test_what_a_guest_wrote_goes_on_after_a_run_that_failed(built: Playground) -> None:
    """Nothing of the image is lost, and it is made anew for no reason but its inputs."""
    disk, rc = built.images / "rootfs.ext2", built.top / "overlays/fake/etc/init.d/rcS"
    written = disk.read_bytes()[:-9] + b"by guests"
    disk.write_bytes(written)
    before = rc.read_text()
    built.edit(rc, "\n", "\r\n")
    assert "line ends of Windows" in built.fails("snapshot=no", "rootfs")
    assert "line ends of Windows" in built.fails("snapshot=no", "rootfs")
    rc.write_text(before)
    assert built.doit("snapshot=no", "rootfs").ran == []
    assert disk.read_bytes() == written
    assert built.doit("rootfs").ran == ["rootfs"]
    assert Path(f"{disk}.1").read_bytes() == written
