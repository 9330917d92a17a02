"""QEMU's argument vector, from a machine's [qemu] table and one boot.

All functions are pure: they start no process and touch no file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tasks.config.emulator import MAC, Disk, Qemu
from tasks.system.errors import PiggyError


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """One boot of a machine.

    Attributes:
        kernel: The kernel image.
        rootfs: The root disk's image, or None.
        floppy: The floppy that is booted, or None; kernel and command line are on it then.
        initrd: The initramfs, or None.
        dtb: The device tree blob, or None.
        memory: MB; 0 for the machine's.
        accel: "tcg" or "kvm".
        append: Addition to the kernel's command line; of a repeated parameter, the last counts for
            most.
        snapshot: Whether to leave the disk image unchanged.
        interactive: Whether a user sits at the terminal: Ctrl-A C opens QEMU's monitor, Ctrl-A X
            ends QEMU, Ctrl-C goes to the guest.
        console: A console before the serial one (a screen); "" for none.
        window: The value of -display; "" for the machine's.
        net: What the network card is connected to; "" for no card.
        mac: The card's hardware address.
        nic: QEMU's arguments for a card other than the machine's.
        serial: The value of -serial; "" for standard input and output.
        extra: More arguments for QEMU.
    """

    kernel: Path
    rootfs: Path | None = None
    floppy: Path | None = None
    initrd: Path | None = None
    dtb: Path | None = None
    memory: int = 0
    accel: str = "tcg"
    append: str = ""
    snapshot: bool = True
    interactive: bool = False
    console: str = ""
    window: str = ""
    net: str = ""
    mac: str = MAC
    nic: tuple[str, ...] = ()
    serial: str = ""
    extra: tuple[str, ...] = ()


def _filled(words: Sequence[str], name: str, value: str | Path) -> list[str]:
    """Replace a placeholder in QEMU's arguments.

    Among an option's values, a comma in a path is doubled (QEMU's documentation, "-drive file=");
    an argument that is only a path stays as it is.

    Args:
        words: The arguments.
        name: The placeholder's name, without braces.
        value: A path or a text.
    """
    mark, text = f"{{{name}}}", str(value)
    inside = text.replace(",", ",,") if isinstance(value, Path) else text
    return [text if word == mark else word.replace(mark, inside) for word in words]


def command_line(qemu: Qemu, boot: Boot) -> str:
    """Return the kernel's command line for a boot.

    panic=-1 makes the kernel restart at once after a panic, and -no-reboot then ends QEMU, so that
    nothing waits for a dead guest.
    """
    words = [f"console={name}" for name in (boot.console, qemu.console) if name]
    if boot.rootfs:
        words += [f"root={_disk(qemu).root}", "ro"]
    return " ".join(filter(None, [*words, "panic=-1", qemu.append.strip(), boot.append.strip()]))


def _disk(qemu: Qemu) -> Disk:
    if qemu.disk is None:
        raise PiggyError(
            f"the machine '{qemu.machine}' has no disk to boot a root filesystem from",
            "boot its initramfs, or add a [qemu.disk] table to the machine file",
        )
    return qemu.disk


def argv(qemu: Qemu, boot: Boot) -> list[str]:
    """Return QEMU's argument vector for a boot.

    With -nodefaults there is only the hardware of the machine file, so that a newer QEMU boots the
    same machine. -display none is used in place of -nographic, which also makes PC firmware write
    to the serial port.

    Raises:
        PiggyError: The boot needs a disk or a network card that the machine lacks.
    """
    words = [qemu.binary, "-no-user-config", "-nodefaults", "-no-reboot", "-machine", qemu.machine]
    words += ["-cpu", qemu.cpu] if qemu.cpu else []
    words += ["-accel", boot.accel, "-m", str(boot.memory or qemu.memory)]
    words += ["-display", boot.window or qemu.display, *qemu.args]
    words += ["-serial", boot.serial or ("mon:stdio" if boot.interactive else "stdio")]
    words += (
        _filled(qemu.floppy, "image", boot.floppy)
        if boot.floppy
        else _filled(qemu.kernel, "kernel", boot.kernel)
    )
    words += _filled(qemu.initrd, "initrd", boot.initrd) if boot.initrd else []
    words += _filled(qemu.dtb, "dtb", boot.dtb) if boot.dtb else []
    if "-kernel" in qemu.kernel and not boot.floppy:  # without it QEMU refuses -append
        words += ["-append", command_line(qemu, boot)]
    words += _filled(_disk(qemu).args, "image", boot.rootfs) if boot.rootfs else []
    if boot.net:
        if not (boot.nic or qemu.nic):
            raise PiggyError(
                f"the machine '{qemu.machine}' has no network card", "add 'nic' to its [qemu] table"
            )
        words += _filled(_filled(boot.nic or qemu.nic, "net", boot.net), "mac", boot.mac)
    return [*words, *(["-snapshot"] if boot.snapshot else []), *boot.extra]


_HEAD = """\
#!/bin/sh
# Boots what lies beside this script. The guest's shell is on the terminal: 'poweroff' or Ctrl-A X
# ends it.
#   KVM=1        let the host's processor run it
#   APPEND="..." more for the kernel's command line
#   WINDOW=gtk   show its screen, if it has one (or sdl; or vnc: by a socket in a folder that only
#                you can enter)
#   NET=...      another end of the network card's cable, such as
#                NET=user,hostfwd=tcp:127.0.0.1:8080-:80
# Arguments are passed on to QEMU; of two equal options QEMU takes the last, as in:
# run-qemu.sh -m 64
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit
# inside QEMU's option values a comma is written twice
here2=$(printf '%s\\n' "$here" | sed 's/,/,,/g')
accel=tcg
[ "${KVM:-0}" = 1 ] && accel=kvm
run=exec
if [ "${WINDOW:-}" = vnc ]; then
    folder=$(mktemp -d "${XDG_RUNTIME_DIR:-/tmp}/piggy.XXXXXX") || exit  # of mode 0700
    WINDOW=vnc=unix:$(printf '%s\\n' "$folder/vnc" | sed 's/,/,,/g')
    to="for a VNC viewer; only you can connect to it: vncviewer $folder/vnc"
    printf '%s\\n' "the screen is at $folder/vnc, $to" \\
        "from elsewhere: ssh -L 5900:$folder/vnc $(uname -n), then vncviewer localhost:5900" >&2
    trap 'rm -f "$folder/vnc"; rmdir "$folder"' EXIT
    trap exit HUP TERM
    run=
fi
"""


def script(words: Sequence[str], folder: Path) -> str:
    """Return a POSIX shell script that runs an argument vector.

    Files in `folder` are named relative to the script, so that the folder can be moved, copied or
    renamed as a whole.

    Args:
        words: QEMU's argument vector.
        folder: The folder of the script.
    """
    lines: list[str] = []
    previous = ""
    for word in words:
        if previous == "-accel":
            text = '"$accel"'
        elif previous == "-append":
            text = shlex.quote(word) + '${APPEND:+" $APPEND"}'
        elif previous == "-display" and re.fullmatch(r"[\w.,=:-]+", word):
            text = f'"${{WINDOW:-{word}}}"'
        elif previous in ("-netdev", "-nic") and word.partition(",")[0] == "user":
            text = '"${NET:-user}"' + word.removeprefix("user")
        else:
            text = _relative(word, f"{folder}/")
        if lines and not word.startswith("-"):
            lines[-1] += " " + text
        else:
            lines.append(text)
        previous = word
    return _HEAD + "$run " + " \\\n    ".join([*lines, '"$@"']) + "\n"


def _relative(word: str, folder: str) -> str:
    """Quote one word for the shell, with the script's folder in place of `folder`."""
    if word.startswith(folder):
        return '"$here"' + shlex.quote("/" + word.removeprefix(folder))
    before, mark, after = word.partition("=" + folder.replace(",", ",,"))
    if mark:
        return shlex.quote(before + "=") + '"$here2"' + shlex.quote("/" + after)
    return shlex.quote(word)
