"""Choice between KVM and TCG.

/dev/kvm may exist and open, and then hang or kill the guest. So KVM is tried once, and the result
is remembered. A trial boots for about a second: a boot sector that takes the processor through the
modes in which a broken KVM fails, then the kernel to be booted, if there is one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from tasks.system.errors import PiggyError
from tasks.system.files import read_regular, write_whole
from tasks.system.terminal import printable

DEVICE = Path("/dev/kvm")
SECONDS = 2.5  # for all trials together; a KVM that works needs about 0.5
_KEPT = 20  # answers in the memory file
_LONGEST = 1 << 20  # bytes of the memory file, and of the output of a guest or QEMU in a trial
_X86 = {"i386", "i486", "i586", "i686", "x86_64"}

# A boot sector, loaded at 0x7c00 (real mode). It prints its progress on the serial port: r, p, g,
# t.
SECTOR = (
    bytes.fromhex(
        "fa fc 31c0 8ed8"  # cli; cld; ds = 0
        "baf803 b072 ee"  # port 0x3f8: 'r', real mode
        "0f0116b87c"  # lgdt gdtr
        "0f20c0 0c01 0f22c0 ea1e7c0800"  # cr0 |= PE; jump to 32 bits, selector 8
        "66b81000 8ed8 8ec0 8ed0 bc00700000"  # ds = es = ss = selector 16; esp = 0x7000
        "b070 ee"  # 'p', protected mode
        "bf00200000 b803000000"  # page table at 0x2000: 4 MB, each page to itself
        "ab 0500100000 3d03004000 75f3"  #   store eax; eax += 0x1000; until 0x400003
        "c7050010000003200000"  # page directory at 0x1000: its only entry
        "b800100000 0f22d8"  # cr3 = 0x1000
        "0f20c0 0d00000080 0f22c0"  # cr0 |= PG
        "b067 ee"  # 'g', paging
        # interrupt table at 0x3000: gate 8 (timer) to 'tick'
        "c70540300000957c0800 c70544300000008e0000"
        "0f011dbe7c0000"  # lidt idtr
        "b0fe e621 31db fb"  # let only the timer through; ebx = 0; sti
        "f4 83fb03 72fa"  # sleep until three ticks (0.17 s) came
        "b074 ee"  # 't', timer interrupts
        "f4 ebfd"  # sleep for ever
        "43 b020 e620 cf"  # tick: ebx += 1; end of interrupt; iret
        "8d742600 90"  # (padding)
        "0000000000000000 ffff0000009acf00 ffff00000092cf00"  # gdt: none, code, data: 4 GB from 0
        "1700a07c0000"  # gdtr
        "470000300000"  # idtr
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)
_STAGES = {
    "": "the guest's BIOS did not get as far as the boot sector",
    "r": "the guest stopped before protected mode",
    "rp": "the guest stopped where paging is switched on",
    "rpg": "the guest got no timer interrupts",
}


class Answer(msgspec.Struct, frozen=True):
    """The accelerator to use.

    Attributes:
        accel: "kvm" or "tcg".
        reason: Why.
        remembered: Whether an earlier run tried it, not this one.
    """

    accel: str
    reason: str
    remembered: bool = False


class Trial(msgspec.Struct, frozen=True):
    """A test of KVM.

    Attributes:
        name: Its name in messages.
        key: What the answer depends on; the key in the memory file.
        run: Gets a timeout in seconds; returns "" if KVM worked, else how it failed.
        failed_key: An addition to `key` under which a failure is remembered: that of a broken
            kernel says nothing about the next kernel.
    """

    name: str
    key: str
    run: Callable[[float], str]
    failed_key: str = ""


def obstacle() -> str:
    """Return why /dev/kvm can't be opened, or ""."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no {DEVICE}"
    except OSError as error:
        return f"{DEVICE} can't be opened: {error.strerror}"
    return ""


def choose(
    setting: str,
    arch: str,
    binary: str,
    memory: Path,
    kernel: Path | None = None,
    boot: Sequence[str] = (),
) -> Answer:
    """Choose between KVM and TCG for a guest.

    Args:
        setting: "tcg" and "kvm" are obeyed; "auto" tries KVM for about 3 s at most.
        arch: The guest's architecture.
        binary: Its QEMU.
        memory: The file that remembers results.
        kernel: A kernel image for a trial, or None.
        boot: QEMU's argument vector to boot that image with KVM.

    Raises:
        PiggyError: Another setting; or KVM is demanded and /dev/kvm can't be opened.
    """
    if setting == "tcg":
        return Answer("tcg", "accel=tcg")
    if setting not in ("kvm", "auto"):
        raise PiggyError(f"accel={setting}: not an accelerator", "one of auto, kvm, tcg")
    why = obstacle()
    if setting == "kvm":
        if why:
            raise PiggyError(
                f"accel=kvm, but {why}",
                "load the module kvm_intel or kvm_amd and be in the group 'kvm', or set accel=auto",
            )
        return Answer("kvm", "accel=kvm")
    host = os.uname().machine
    if why or not (arch == host or {arch, host} <= _X86 and (host == "x86_64" or arch != "x86_64")):
        return Answer("tcg", why or f"the guest is {arch}, the host is {host}")
    trials = [sector_trial(binary)] if arch in _X86 else []
    trials += [kernel_trial(binary, kernel, boot)] if kernel and boot else []
    return usable(trials, memory)


def usable(trials: Iterable[Trial], memory: Path) -> Answer:
    """Run the trials without a remembered result until one fails, and remember the results.

    Args:
        trials: The trials, in order.
        memory: A JSON file, {key: {"works": bool, "reason": str}}. If it can't be read or written,
            all trials run each time.
    """
    book = _read(memory)
    tried, fresh, deadline = False, False, time.monotonic() + SECONDS
    failure = ""
    for trial in trials:
        tried = True
        known = book.get(trial.key) or book.get(trial.key + trial.failed_key)
        if known is None:
            fresh = True
            why = printable(trial.run(max(0.8, deadline - time.monotonic())))[:500]
            known = {"works": not why, "reason": why}
            book[trial.key + (trial.failed_key if why else "")] = known
        if not known["works"]:
            failure = f"{trial.name}: {known['reason']}"
            break
    if fresh:
        with contextlib.suppress(OSError):  # a read-only place: the trial is run again next time
            write_whole(memory, json.dumps(dict(list(book.items())[-_KEPT:]), indent=1) + "\n")
    if not tried:
        return Answer("tcg", "nothing to try KVM with yet")
    return Answer("tcg" if failure else "kvm", failure or "a trial boot worked", not fresh)


def _read(memory: Path) -> dict[str, dict]:
    """Return the remembered results; none if the file is absent, damaged or of another form."""
    try:
        book = json.loads(read_regular(memory, most=_LONGEST))
        return {
            key: {"works": entry["works"] is True, "reason": printable(str(entry["reason"]))}
            for key, entry in book.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _host(binary: str) -> str:
    """Return what a result depends on: this boot of this host, its processor, and its QEMU."""

    def text(path: str) -> str:
        with contextlib.suppress(OSError):
            return Path(path).read_text(encoding="utf-8", errors="replace")
        return ""

    uname = os.uname()
    model = re.search(r"^model name\s*: (.*)$", text("/proc/cpuinfo"), re.M)
    path = shutil.which(binary) or binary
    return " / ".join(
        [
            uname.nodename,
            uname.release,
            text("/proc/sys/kernel/random/boot_id").strip(),
            model[1] if model else uname.machine,
            f"{path} {_stamp(Path(path))}",
        ]
    )


def _stamp(path: Path) -> str:
    with contextlib.suppress(OSError):
        info = path.stat()
        return f"{info.st_size}:{info.st_mtime_ns}"
    return "-"


def sector_trial(binary: str) -> Trial:
    """Return a trial with our boot sector, for x86 guests without a kernel."""
    return Trial(
        "boot sector",
        f"{_host(binary)} / boot sector",
        lambda seconds: try_sector(binary, "kvm", seconds),
    )


def kernel_trial(binary: str, kernel: Path, boot: Sequence[str]) -> Trial:
    """Return a trial with a real kernel; it passes when the kernel prints to its console."""

    def run(seconds: float) -> str:
        output, end = _listen(boot, lambda text: bool(text.strip()), seconds)
        return "" if output.strip() else end or "the kernel says nothing"

    return Trial("kernel", f"{_host(binary)} / kernel", run, f" / {kernel} {_stamp(kernel)}")


def try_sector(binary: str, accel: str, seconds: float = SECONDS) -> str:
    """Boot SECTOR; return "" if it passed all its stages, else where it stopped."""
    with tempfile.TemporaryDirectory(prefix="piggy-kvm.") as folder:
        image = Path(folder) / "sector.img"
        image.write_bytes(SECTOR)
        output, end = _listen(
            [
                binary,
                "-no-user-config",
                "-nodefaults",
                "-no-reboot",
                "-machine",
                "pc",
                "-accel",
                accel,
                "-m",
                "8",
                "-display",
                "none",
                "-serial",
                "stdio",
                "-drive",
                f"file={str(image).replace(',', ',,')},format=raw,if=ide",
            ],
            lambda text: text.startswith(b"rpgt"),
            seconds,
        )
    stage = output.decode("latin-1")
    if stage.startswith("rpgt"):
        return ""
    return _STAGES.get(stage, f"the guest said {stage[:20]!r}") + (f" ({end})" if end else "")


def _listen(
    argv: Sequence[str], enough: Callable[[bytes], bool], seconds: float
) -> tuple[bytes, str]:
    """Run QEMU until it has printed enough, ends, or the time is up, and kill it.

    Args:
        argv: QEMU's argument vector.
        enough: Tells whether its standard output so far is enough.
        seconds: The timeout.

    Returns:
        Its standard output, and the last line of its standard error if it ended by itself.
    """
    import select
    import subprocess

    from tasks.system.process import child, clean_env

    deadline, output = time.monotonic() + seconds, b""
    with (
        tempfile.TemporaryFile() as errors,
        child(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=clean_env()
        ) as process,
    ):
        assert process.stdout is not None
        while (
            not enough(output)
            and len(output) < _LONGEST
            and (left := deadline - time.monotonic()) > 0
        ):
            if select.select([process.stdout], [], [], left)[0]:
                chunk = os.read(process.stdout.fileno(), 4096)
                if not chunk:
                    break
                output += chunk
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0 if time.monotonic() >= deadline or enough(output) else 0.2)
        ended = process.poll()
        process.kill()  # a trial has nothing to save
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.stdout.close()
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - _LONGEST))
        message = errors.read().decode(errors="replace").strip().splitlines()
    if ended is None:
        return output, ""
    return output, (message[-1] if message else f"QEMU ended with status {ended}")
