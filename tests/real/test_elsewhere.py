"""The PC built a second time, by somebody else and elsewhere: the same images."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.conftest import Checkout, lay_out, odd

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    "tasks", [["kernel_config", "rootfs", "initramfs"], pytest.param([], marks=pytest.mark.long)]
)
def test_a_second_checkout_elsewhere_gives_the_same_images(
    pc_from_store: Checkout, tmp_path: Path, tasks: list[str]
) -> None:
    """User space, with the kernel tree at hand; and everything, which takes minutes. That a kernel
    does not follow its place test_arm.py shows."""
    pc = pc_from_store
    env = {**odd(tmp_path), **({"PIGGYBACK_SRC": str(pc.kernel)} if tasks else {})}
    other = lay_out(tmp_path / "elsewhere" / "deeper" / "checkout", env=env, umask=0o077)
    other.doit(*tasks)
    names = sorted(
        path.name
        for path in (other if tasks else pc).images.iterdir()
        if path.name != "run-qemu.sh"
    )
    assert {"busybox", "rootfs.ext2", "initramfs.cpio.gz", "config"} <= set(names)
    assert [
        name
        for name in names
        if (pc.images / name).read_bytes() != (other.images / name).read_bytes()
    ] == []
