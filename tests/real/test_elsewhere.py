"""The PC built a second time, by somebody else and elsewhere: the same images."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.conftest import Checkout, lay_out, odd

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    "words",
    [
        ["busybox_fragments=tiny", "kernel_config", "rootfs", "initramfs"],
        pytest.param([], marks=pytest.mark.long),
    ],
)
def test_a_second_checkout_elsewhere_gives_the_same_images(
    pc_from_store: Checkout, tmp_path: Path, words: list[str]
) -> None:
    """User space, cut down, with the kernel tree at hand; and everything, which takes minutes. That
    a kernel does not follow its place test_arm.py shows."""
    pc = pc_from_store
    pc.doit(*words)
    env = {**odd(tmp_path), **({"PIGGYBACK_KERNEL_SRC": str(pc.kernel)} if words else {})}
    other = lay_out(tmp_path / "elsewhere" / "deeper" / "checkout", env=env, umask=0o077)
    other.doit(*words)
    names = sorted(
        path.name
        for path in (other if words else pc).images.iterdir()
        if path.name != "run-qemu.sh"
    )
    assert {"busybox", "rootfs.ext2", "initramfs.cpio.gz", "config"} <= set(names)
    if words:
        assert (other.images / "busybox").stat().st_size <= 250_000  # as docs/size.md has it
    differ = [
        name
        for name in names
        if (pc.images / name).read_bytes() != (other.images / name).read_bytes()
    ]
    pc.doit()
    assert differ == []
