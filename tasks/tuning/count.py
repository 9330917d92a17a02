"""The instructions of a boot from reset to the shell's answer, as one number.

The boot is that of `boot_profile`, halted only where the shell waits for input, so it costs hardly
more than an ordinary one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tasks import qemu
from tasks.config.project import Project
from tasks.guest import boot as guest_boot
from tasks.guest import marks
from tasks.guest.marks import Marks
from tasks.kconfig import dotconfig
from tasks.system.errors import PiggyError
from tasks.tuning import boot_points, boot_run, sizes
from tasks.tuning.boot_points import Points

LOG = "count.log"
_TRIES = 2  # a busy host may let a guest fall silent


class InHostTime(msgspec.Struct, frozen=True):
    """A device that answers in the host's time, not the guest's: a boot with it has another count.

    Attributes:
        device: The device, in words.
        without: The setting that boots without it.
    """

    device: str
    without: str

    def __str__(self) -> str:
        """Return why counts differ."""
        return f"{self.device} answers in the host's time"


def in_host_time(disk: bool, card: Sequence[str]) -> list[InHostTime]:
    """Return the devices of a boot that answer in the host's time.

    Args:
        disk: Whether it has a disk.
        card: QEMU's words for its network card; none for no card.
    """
    found = [InHostTime("a disk", "boot=initramfs")] if disk else []
    if any("virtio" in word for word in card):
        found.append(InHostTime("a virtio network card", "net=none"))
    return found


def why_not(its: Project) -> str:
    """Return why a boot can't be counted to the instruction; "" if it can.

    Args:
        its: The project.
    """
    if its.machine.qemu is None:
        return "QEMU does not emulate this machine"
    nic = its.nic.args if its.nic else its.machine.qemu.nic
    card = nic if guest_boot.networked(its) else ()
    for one in in_host_time(guest_boot.from_disk(its), card):
        return f"{one} ({one.without} is counted)"
    return ""


def total(its: Project) -> int:
    """Boot, and return the instructions from reset to the shell's answer.

    Args:
        its: The project as it was built.

    Raises:
        PiggyError: The boot can't be counted, or the guest fails, twice.
    """
    if words := why_not(its):
        raise PiggyError(f"the boot can't be counted: {words}")
    assert its.machine.qemu is not None
    it = qemu.checked(its)
    config = dotconfig.read_config(its.layout.config)
    kernel = sizes.kernel(its.layout.images / "vmlinux")
    points = shell(boot_points.points(kernel, config, its.machine.arch, its.image))
    if not points.at:
        raise PiggyError("the kernel has no n_tty_poll: when its shell answers can't be told")
    library = marks.plugin(its.machine.qemu.binary, its.layout.here / "boot_profile")

    def command(serial: str, extra: Sequence[str]) -> list[str]:
        return guest_boot.command(
            its, it, "tcg", interactive=False, trial=True, serial=serial, extra=extra
        )

    boot_run.refuse_random(config, command("", ()))
    most, log = its.settings.timeout, its.layout.logs / LOG
    for left in reversed(range(_TRIES)):
        try:
            return boot_run.record(command, library, points, its.machine.arch, log, most)[-1].count
        except PiggyError:
            if not left:
                raise
    raise AssertionError("the last turn returns or raises")


def shell(points: Points) -> Points:
    """Return the places at which the shell waits for input alone.

    Args:
        points: All places of a kernel.
    """
    at = {address: point for address, point in points.at.items() if point.what == "tty"}
    return Points(at, Marks(tuple(sorted(at))), points.wide, points.order, 0)
