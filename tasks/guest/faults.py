"""Diagnosis of a failed guest from its console output: a sentence and a hint for each failure.

The patterns match messages of init/main.c, init/do_mounts.c, kernel/panic.c, kernel/exit.c and
arch/*/kernel/traps.c. All functions are pure.
"""

from __future__ import annotations

import os
import re
import signal

from tasks.system.pattern import pattern
from tasks.system.process import signal_name

Fault = tuple[str, str]

# Patterns match at most 1,000 characters of a line, as the kernel's lines are shorter. Without the
# limit, a guest that repeats the beginning of a message would keep the search busy for hours.
_PANIC = pattern(r"Kernel panic - not syncing: ([^\n]{0,1000})\n")
_OOPS = pattern(
    r"(?:^|\n)(?:\[[^\]\n]*\] ?)*((?:BUG: (?:unable to handle|kernel NULL)|kernel BUG at"
    r" |Unable to "
    r"handle kernel )[^\n]*|[^\n]{3,80}: [0-9a-f]+ \[#\d+\][^\n]*)\n"
)
_NO_ROOT = pattern(
    r'Cannot open root device "([^"\n]{0,200})" or [^\n]{0,200}?(?:: error (-[0-9]{1,5}))?\n'
)
_PARTITIONS = pattern(
    r"(?:here are the available partitions|List of all (?:bdev|partitions))[^\n]{0,200}:\n(.*?)"
    r"(?:Kernel panic|No filesystem|List of all bdev|$)",
    re.S,
)
# printk_all_partitions() in block/genhd.c.
_DISK_LINE = pattern(r"^(?:\[[^\]\n]*\])* *[0-9a-f]{4} +\d+ (\S+)", re.M)
_TRIED = pattern(r"No filesystem could mount root, tried:[ \n]*([^\n]*)")
_INIT_FAILED = pattern(
    r"(?:Failed to execute|Requested init|Default init|Starting init:) (\S{1,200}?):?"
    r" [^\n]{0,200}?\(error (-[0-9]{1,5})\)"
)
_KILLED_INIT = pattern(r"Attempted to kill init! exitcode=0x([0-9a-f]{1,8})")
_BANNER = pattern(r"^(?:\[[^\]\n]*\] ?)*Linux version \d", re.M)
# do_populate_rootfs() and populate_initrd_image() in init/initramfs.c. The messages of _HARMLESS
# are about bytes after a complete archive: some boot loaders pad it.
_UNPACKING = pattern(
    r"(?:Initramfs unpacking failed: |rootfs image is not initramfs \()([^\n)]*)[^\n]*\n"
)
_HARMLESS = pattern(r"junk at the end|junk within|invalid magic at start|Decoding failed")
_WAITING = pattern(r"Waiting for root device (\S{1,200}?)\.\.\.")
# The image is in use; a port of the host is taken (net/slirp.c); /dev/kvm (accel/kvm/kvm-all.c).
_OF_HOST = pattern(r"\block\b|host forwarding rule|KVM", re.IGNORECASE)
_USERLAND = pattern(r"Run (\S{1,200}) as init process|Freeing (?:unused kernel|init memory)")
_EARLY = (
    "'earlyprintk=serial' (x86, EARLY_PRINTK) or 'earlycon' on the command line shows the kernel's"
    " first words"
)
_MEMORY = "is there enough memory? (x86 kernels are placed at PHYSICAL_START, 16 MB by default)"


def diagnose(console: str, name: str = "") -> Fault | None:
    """Return the kernel's panic, oops or failure to unpack the initramfs; None if there is none.

    Args:
        console: The console's output.
        name: QEMU's name; unused here.
    """
    panic, oops = _PANIC.search(console), _OOPS.search(console)
    if (unpacking := _UNPACKING.search(console)) and (panic or not _HARMLESS.search(unpacking[1])):
        return _not_unpacked(unpacking[1].strip())
    if oops and (not panic or oops.start() < panic.start()):
        return f"kernel oops: {oops[1].strip()}", "the call trace is in the log"
    if not panic:
        return None
    reason = panic[1].strip()
    if "Unable to mount root fs" in reason:
        return _no_root(console, reason)
    if "init" in reason.lower() and (fault := _no_init(console, reason)):
        return fault
    hint = (
        "more memory may cure it (memory, in MB)"
        if "memory" in reason.lower()
        else "the call trace is in the log"
    )
    return f"kernel panic: {reason}", hint


def _not_unpacked(reason: str) -> Fault:
    """Return the fault for an initramfs that the kernel could not unpack.

    A "write error" is from xwrite() in init/initramfs.c: the file system of the unpacked files is
    full.
    """
    what = f"the kernel could not unpack the initramfs: {reason}"
    if "write" in reason:
        return (
            (
                f"{what} (it is bigger than the guest's memory, or than the half of it that a tmpfs"
                " may take)"
            ),
            (
                "give the guest more memory (memory, in MB), make the initramfs smaller, or boot"
                " from a disk (boot=disk)"
            ),
        )
    return (
        what,
        (
            "is its compressor in the kernel (CONFIG_RD_*), and is the archive whole? 'doit verify'"
            " compares it"
        ),
    )


def _no_root(console: str, reason: str) -> Fault:
    tried = _TRIED.search(console)
    if tried:
        names = tried[1].split()
        return (
            (
                "no file system driver of the kernel can mount the root device (tried:"
                f" {', '.join(names) or 'none'})"
            ),
            (
                "is the image's file system in the kernel (CONFIG_EXT2_FS=y), and is the image"
                " whole (e2fsck -fn)?"
            ),
        )
    missing = _NO_ROOT.search(console)
    seen = _PARTITIONS.search(console)
    disks = _DISK_LINE.findall(seen[1]) if seen else []
    what = (
        f"the kernel finds no root device '{missing[1]}'" if missing else f"kernel panic: {reason}"
    )
    if missing and missing[1] in ("", "(null)"):
        what = "the kernel was not told its root device (no root= on its command line)"
    if disks:
        return what, f"it sees {', '.join(disks)}: is root= right?"
    return (
        what,
        (
            "it sees no disk at all: the driver of the disk's controller is not in its"
            " configuration (for a PC's IDE: ATA_PIIX, BLK_DEV_SD), or QEMU was given no disk"
        ),
    )


def _no_init(console: str, reason: str) -> Fault | None:
    killed = _KILLED_INIT.search(reason)
    if killed:
        code = int(killed[1], 16)
        number, status = code & 0x7F, code >> 8
        how = f"was killed by {signal_name(number)}" if number else f"ended with status {status}"
        hint = (
            "it uses instructions that this processor lacks: compile for an older one, or set the"
            " machine's cpu"
            if number == signal.SIGILL
            else "its own words, if any, are the last lines on the console"
        )
        return f"init {how}, and the kernel can't live without", hint
    failed = [(path, -int(error)) for path, error in _INIT_FAILED.findall(console)]
    real = [(path, error) for path, error in failed if error != 2]
    if real:
        path, error = real[0]
        what = f"the kernel can't execute {path}: {os.strerror(error)}"
        if error == 8:
            return (
                what,
                (
                    "it is for another architecture, or the kernel lacks its format"
                    " (CONFIG_BINFMT_ELF=y; CONFIG_BINFMT_SCRIPT=y for a script)"
                ),
            )
        return what, "look at its mode and its owner in the image"
    if failed or "No working init" in reason:
        missing = f" ({', '.join(path for path, _ in failed)} is not there)" if failed else ""
        hint = (
            "the kernel tries /sbin/init, /etc/init, /bin/init, /bin/sh, and /init in an initramfs;"
            " a dynamically linked one also needs its loader"
        )
        return f"the root file system has no init that works{missing}", hint
    return None


def booting(console: str) -> bool:
    """Tell whether the kernel has printed its banner and has not started init yet."""
    return bool(_BANNER.search(console)) and not _USERLAND.search(console)


def silence(console: str, seconds: float, name: str = "qemu") -> Fault:
    """Return the fault of a guest that has printed nothing for some time.

    Args:
        console: The console's output.
        seconds: Length of the silence.
        name: QEMU's name.
    """
    lines = guest_lines(console, name)
    if not lines:
        return (
            f"black screen: not a word on the console in {seconds:.0f} s",
            (
                f"is console= the port that QEMU shows, with its driver in the kernel? Or {_MEMORY}"
                f" {_EARLY}"
            ),
        )
    waiting = _WAITING.search(console)
    if waiting:
        return (
            f"the kernel waits for its root device {waiting[1]}, which does not appear",
            "is its driver in the kernel's configuration, and is root= right?",
        )
    last = lines[-1].strip()
    if init := _USERLAND.search(console):
        hint = (
            f"{init[1] or 'init'} runs, but no shell answers: does it start one on the console"
            " (/etc/inittab), with console= naming the port that QEMU shows?"
        )
        return f"the guest fell silent for {seconds:.0f} s after '{last}'", hint
    hint = (
        "'initcall_debug' on the command line names the driver that it hangs in"
        if _BANNER.search(console)
        else f"it died before its console was set up: {_EARLY}"
    )
    return f"the kernel hangs: silent for {seconds:.0f} s after '{last}'", hint


def restarted(console: str) -> bool:
    """Tell whether the kernel has printed its banner more than once."""
    return len(_BANNER.findall(console)) > 1


def guest_lines(console: str, name: str = "qemu") -> list[str]:
    """Return the console's lines that are not blank and not QEMU's own."""
    return [
        line
        for line in console.splitlines()
        if line.strip() and not line.startswith((f"{name}: ", "qemu"))
    ]


def by_host(message: str, status: int, number: int) -> bool:
    """Tell whether the host is why QEMU ended, by what `ended` says of it.

    Args:
        message: The fault's message.
        status: QEMU's exit status.
        number: The signal that killed it; 0 for none.
    """
    return bool(number or (status and _OF_HOST.search(message)))


def ended(console: str, name: str, status: int, number: int) -> Fault:
    """Return the fault for a QEMU that ended by itself.

    Args:
        console: The console's output.
        name: QEMU's name.
        status: Its exit status.
        number: The signal that killed it; 0 for none.
    """
    own = [
        line.partition(": ")[2]
        for line in console.splitlines()
        if line.startswith((f"{name}: ", "qemu")) and ": warning: " not in line
    ]
    if number:
        return f"{name} was killed by {signal_name(number)}", ""
    if status:
        message = "; ".join(own) or (console.strip().splitlines() or ["without a word"])[-1]
        hint = (
            "another QEMU is using the image: end it, or boot with a snapshot"
            if "lock" in message
            else "the words come from the machine file's [qemu] table and the settings"
        )
        return f"{name} ended with status {status}: {message}", hint
    if fault := diagnose(console + "\n", name):
        return fault
    if not guest_lines(console, name):
        return (
            "the guest reset itself before its first word",
            (
                f"the kernel or its loader crashed: is it for this processor (-cpu), and {_MEMORY}"
                f" {_EARLY}"
            ),
        )
    return (
        "the guest reset or switched itself off before it was told to",
        "a crash without a message (triple fault), or something in it called reboot or poweroff",
    )
