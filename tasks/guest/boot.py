"""One boot: gathered from images, settings and machine, checked, and turned into a command.

    images + settings + machine file -> Boot -> check    preflight.py, the network card's driver
                                             -> command  qemu.py: the argument vector to start

The boot that is checked is the one that starts: `command` changes only terminal, window and cable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tasks.config.machine import NO_DISPLAY
from tasks.config.project import Project
from tasks.guest import qemu
from tasks.guest.qemu import Boot
from tasks.system import terminal
from tasks.system.errors import PiggyError

if TYPE_CHECKING:
    from tasks.guest.serial import Limits
    from tasks.network.cable import Cable


def from_disk(project: Project) -> bool:
    """Tell whether the machine boots from its disk, not from the initramfs alone.

    Raises:
        PiggyError: boot=disk, but the machine has no disk.
    """
    assert project.machine.qemu is not None
    if project.settings.boot == "disk" and project.machine.qemu.disk is None:
        raise PiggyError(
            f"{project.origins['boot']}: boot=disk, but the machine '{project.settings.machine}'"
            " has no disk",
            "boot=initramfs, or add a [qemu.disk] table to the machine file",
        )
    return project.machine.qemu.disk is not None and project.settings.boot != "initramfs"


def root_image(project: Project) -> Path:
    """Return the image with the root filesystem: the disk's, or the initramfs."""
    return project.layout.rootfs if from_disk(project) else project.layout.initramfs


def floppy(project: Project) -> Path | None:
    """Return the floppy that the machine boots from, or None."""
    machine = project.machine.qemu
    return project.layout.floppy if machine and machine.floppy else None


def networked(project: Project) -> bool:
    """Tell whether the guest has a network card.

    Raises:
        PiggyError: The setting `net` needs a card, but the machine has none.
    """
    assert project.machine.qemu is not None
    card = bool(project.nic or project.machine.qemu.nic)
    if not card and project.settings.net not in ("user", "none"):
        raise PiggyError(
            f"{project.origins['net']}: net={project.settings.net}, but the machine "
            f"'{project.settings.machine}' has no network card",
            "add 'nic' to its [qemu] table",
        )
    return card and project.settings.net != "none"


def gather(project: Project, dtb: Path | None) -> Boot:
    """Return the boot that machine and settings describe, with absolute paths of the images.

    The network card is connected to QEMU's user network, without port forwarding, until `command`
    gets a cable for it.

    Args:
        project: Machine, settings and layout.
        dtb: The device tree blob; None if the machine needs none.
    """
    settings = project.settings
    assert project.machine.qemu is not None
    root, disk = root_image(project).absolute(), from_disk(project)
    inside = project.machine.kernel.initramfs
    disk_a = floppy(project)
    several = settings.net == "lab" and settings.guests > 1  # they share one disk image
    return Boot(
        kernel=project.layout.kernel_image.absolute(),
        rootfs=root if disk else None,
        floppy=disk_a.absolute() if disk_a else None,
        initrd=None if disk or inside else root,
        dtb=dtb.absolute() if dtb else None,
        memory=settings.memory,
        append=" ".join(filter(None, (project.display.append, settings.append))),
        console=project.display.console,
        snapshot=settings.snapshot or several,
        net="user" if networked(project) else "",
        nic=project.nic.args if project.nic else (),
        extra=(*(project.firmware.args if project.firmware else ()), *project.display.args),
    )


def command(
    project: Project,
    boot: Boot,
    accel: str,
    interactive: bool,
    trial: bool = False,
    window: str = "",
    extra: Sequence[str] = (),
    cable: Cable | None = None,
    serial: str = "",
) -> list[str]:
    """Return QEMU's argument vector for a boot.

    Args:
        project: Machine and settings.
        boot: The boot, as `gather` returns it.
        accel: "kvm" or "tcg".
        interactive: Whether a user sits at the terminal.
        trial: Whether the guest is killed after its first output; it then never writes to the disk
            image.
        window: The value of -display; "" for the machine's.
        extra: More arguments for QEMU.
        cable: The network card's connection; None for QEMU's user network without port forwarding.
        serial: The value of -serial; "" for standard input and output.
    """
    assert project.machine.qemu is not None
    if cable:
        if cable.append and boot.floppy:
            raise PiggyError(
                f"the guest is to be told {cable.append}, and a floppy has its own command line",
                f"append={cable.append} writes it there; address=dhcp",
            )
        words = (project.display.append, cable.append, project.settings.append)
        boot = msgspec.structs.replace(
            boot,
            append=" ".join(filter(None, words)),
            net=cable.net if boot.net else "",
            mac=cable.mac,
        )
    started = msgspec.structs.replace(
        boot,
        accel=accel,
        interactive=interactive,
        window=window,
        snapshot=boot.snapshot or trial,
        serial=serial,
        extra=(*boot.extra, *extra),
    )
    prefix = cable.prefix if cable else ()
    return [*prefix, *qemu.argv(project.machine.qemu, started)]


def check(
    project: Project, boot: Boot, config: Mapping[str, str], unpacked: int, attributes: bool
) -> None:
    """Check that boot, kernel configuration and machine fit together; print a note for a defect.

    Args:
        project: Machine and settings.
        boot: The boot, as `gather` returns it.
        config: The kernel's configuration, as dotconfig.read_config returns it.
        unpacked: Bytes of memory that the unpacked initramfs takes.
        attributes: Whether the root disk has extended attributes.

    Raises:
        PiggyError: The combination can't boot.
    """
    from tasks.guest import preflight

    assert project.machine.qemu is not None
    with boot.kernel.open("rb") as stream:
        head = stream.read(preflight.HEAD)
    problems = preflight.check(
        config,
        qemu.command_line(project.machine.qemu, boot),
        project.machine.qemu,
        has_disk=boot.rootfs is not None,
        has_initrd=boot.initrd is not None or project.machine.kernel.initramfs,
        arch=project.machine.arch,
        memory=boot.memory,
        kernel_head=head,
        payload=os.path.getsize(boot.kernel) + (os.path.getsize(boot.initrd) if boot.initrd else 0),
        initrd_head=boot.initrd.read_bytes()[:16] if boot.initrd else b"",
        static_dev=True,
        has_nic=bool(boot.net) and not boot.nic,
        unpacked=unpacked if boot.rootfs is None else 0,
        attributes=boot.rootfs is not None and attributes,
    )
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise PiggyError(
            "this would not boot: " + "; ".join(problem.message for problem in fatal),
            "\n  ".join(dict.fromkeys(problem.hint for problem in fatal)),
        )
    check_network(project, boot, config)
    for problem in problems:
        terminal.line("note", f"{problem.message} ({problem.hint})")


def check_network(project: Project, boot: Boot, config: Mapping[str, str]) -> None:
    """Check that the kernel has IPv4 and a driver for the boot's network card.

    Raises:
        PiggyError: It lacks one of them.
    """
    from tasks.network import card

    assert project.machine.qemu is not None
    if not boot.net or project.settings.address in ("off", "none"):
        return
    missing = card.unmet(
        config,
        boot.nic or project.machine.qemu.nic,
        (),
        dhcp=project.settings.address == "dhcp",
        modules=boot.initrd is not None,
    )
    if missing:
        raise PiggyError(
            "the guest would have no network: "
            + "; ".join(
                f"{whose} needs CONFIG_{symbol.replace('|', ' or CONFIG_')} in the kernel"
                for whose, symbol in missing
            ),
            "add to a fragment: "
            + " ".join(f"CONFIG_{symbol.split('|')[0]}=y" for _, symbol in missing)
            + "; or net=none boots without a card",
        )


def accelerator(project: Project, boot: Boot) -> str:
    """Return "kvm" or "tcg" (see kvm.py); if KVM was tried just now in vain, print why."""
    from tasks.guest import kvm

    machine = project.machine.qemu
    assert machine is not None
    answer = kvm.choose(
        project.settings.accel,
        project.machine.arch,
        machine.binary,
        project.layout.build / "host" / "kvm.json",
        boot.kernel,
        command(project, boot, "kvm", interactive=False, trial=True),
    )
    if answer.accel == "tcg" and not answer.remembered and project.settings.accel == "auto":
        terminal.line("note", f"KVM is not used: {answer.reason}")
    return answer.accel


def limits(project: Project, accel: str, config: Mapping[str, str]) -> Limits:
    """Return the timeouts of a boot test.

    A kernel without messages (PRINTK) may be silent until its shell is there: the first word on the
    console is init's.

    Args:
        project: The settings.
        accel: The accelerator ("kvm", "tcg").
        config: The kernel's configuration, as dotconfig.read_config returns it.
    """
    from tasks.guest import serial

    most = serial.limits(accel)
    silence = most.boot if config.get("PRINTK") == "n" else most.silence
    total = min(most.total, project.settings.timeout)
    return msgspec.structs.replace(most, total=total, silence=silence)


def window(project: Project, folder: Path) -> str:
    """Return the value of -display for qemu_boot, and tell the user where the screen is shown.

    Args:
        project: Machine and settings.
        folder: The folder for VNC's socket.
    """
    from tasks.guest import screen

    if project.settings.display == NO_DISPLAY:
        return ""
    assert project.machine.qemu is not None
    word, explanation = screen.window(
        project.machine.qemu.binary, project.settings.window, os.environ, folder
    )
    for line in explanation.splitlines():
        terminal.line("display", line)
    return word
