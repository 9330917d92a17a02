"""QEMU's command line as data.

The [qemu] table of a machine file and one boot of it become an argument vector.

Everything here is pure: no process, no file is touched.
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

    memory:      MB (0: the machine's).
    accel:       "tcg" or "kvm".
    append:      more for the kernel's command line; where a word comes twice, most of the kernel's
        take the last.
    snapshot:    leave the disk image as it is.
    interactive: the terminal is a person's: QEMU's monitor is on Ctrl-A C, Ctrl-A X ends it, Ctrl-C
        goes to the guest.
    console:     another console of the kernel's, before the serial one (a screen's).
    window:      for -display ("": what the machine says).
    net:         what the network card is plugged into ("": the machine has no card);  mac: its
        hardware address.
    nic:         QEMU's words for another card than the machine's own.
    serial:      for -serial ("": our standard input and output).
    extra:       more words for QEMU.
    """

    kernel: Path
    rootfs: Path | None = None
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
    """Put a file's path for its placeholder.

    Inside an option's list of values a comma is written twice (QEMU's documentation, "-drive
    file="); a word that is nothing but a path is taken as it is.
    """
    mark, text = f"{{{name}}}", str(value)
    inside = text.replace(",", ",,") if isinstance(value, Path) else text
    return [text if word == mark else word.replace(mark, inside) for word in words]


def command_line(qemu: Qemu, boot: Boot) -> str:
    """Return the kernel's command line for a boot.

    panic=-1 restarts at once after a panic, which -no-reboot turns into QEMU's end: a panic costs
    no waiting.
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
    """Return QEMU's argument vector for a boot; raise PiggyError when the machine can't do it.

    -nodefaults: only the hardware that is written down, so that a newer QEMU boots the same
    machine. -display none, not -nographic: the latter also makes PC firmware write to the serial
    port.
    """
    words = [qemu.binary, "-no-user-config", "-nodefaults", "-no-reboot", "-machine", qemu.machine]
    words += ["-cpu", qemu.cpu] if qemu.cpu else []
    words += ["-accel", boot.accel, "-m", str(boot.memory or qemu.memory)]
    words += ["-display", boot.window or qemu.display, *qemu.args]
    words += ["-serial", boot.serial or ("mon:stdio" if boot.interactive else "stdio")]
    words += _filled(qemu.kernel, "kernel", boot.kernel)
    words += _filled(qemu.initrd, "initrd", boot.initrd) if boot.initrd else []
    words += _filled(qemu.dtb, "dtb", boot.dtb) if boot.dtb else []
    if "-kernel" in qemu.kernel:  # without it QEMU refuses -append
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
    """Return a POSIX shell script in `folder` that does what the argument vector `words` does.

    Files in `folder` are named relative to the script, so that the folder can be moved, copied or
    renamed as a whole.
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
