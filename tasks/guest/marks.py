"""A boot that halts at marked instructions, to be counted without a trace in the guest.

QEMU's debugger stops the guest's clock too late: under `-icount sleep=off` each of its stops makes
the clock jump to the next timer (icount_start_warp_timer(), softmmu/icount.c), and the boot takes
another course. So a plug-in (marks.c) holds the processor in the middle of its work. QEMU itself
does not notice, and answers questions about registers and memory meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from tasks.guest import faults, screen, sockets
from tasks.guest.serial import GuestError
from tasks.system.errors import PiggyError
from tasks.system.files import write_whole
from tasks.system.pattern import pattern
from tasks.system.process import child, clean_env, run

# The clock is the count of instructions, a nanosecond each. Without clock=vm the guest reads the
# host's clock, and some hundred instructions differ from run to run. Without a seed, what RDRAND
# and device trees (rng-seed) give is the host's chance, and the kernel places programs by it.
_CLOCK = ("-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01T00:00:00,clock=vm")
COUNTED = (*_CLOCK, "-seed", "1")
SOURCE = Path(__file__).with_name("marks.c")
_FILES = ("marks", "records", "answers")  # what marks.c is told of
_RECORD = struct.Struct("=QQ")
_REGISTER = pattern(r"([\w/]+)(?:=| +)([0-9a-f]{8,16})\b")
_SILENCE = 120.0  # seconds without a mark or a character
_ENDING = 2.0  # seconds for a QEMU that has closed its monitor
_PIPE = 1 << 20  # bytes of console that fit into the pipe: /proc/sys/fs/pipe-max-size, pipe(7)
_LONGER = "what does it wait for? timeout=SECONDS gives it longer"
_VERSION = pattern(r"version (\d+)\.")
_NEWER = 9  # the first QEMU that refuses plug-ins of interface 1 (QEMU_PLUGIN_MIN_VERSION)


class Marks(msgspec.Struct, frozen=True):
    """The addresses at which the boot halts.

    Attributes:
        at: Each time that they are reached.
        enter: The same; and once more when execution comes back to `back`.
        back: The second address of a function, and the one behind it.
    """

    at: tuple[int, ...]
    enter: tuple[int, ...] = ()
    back: tuple[int, int] = (0, 0)

    @property
    def text(self) -> str:
        """The marks as marks.c reads them."""
        lines = [f"at {one:x}" for one in self.at] + [f"enter {one:x}" for one in self.enter]
        return "\n".join([*lines, f"back {self.back[0]:x} {self.back[1]:x}", ""])


class Halted:
    """The guest, halted at a mark.

    Attributes:
        address: The mark; for a return to `Marks.back`, the first of the two.
        count: The instructions executed before.
        console: The text of the serial line up to now.
    """

    def __init__(self, ask: screen.Monitor, folder: Path, console: bytes) -> None:
        self.address = self.count = 0
        self.console, self._ask, self._folder = console, ask, folder

    def registers(self) -> dict[str, int]:
        """Return the processor's registers, as QEMU names them."""
        text = self._ask("human-monitor-command", **{"command-line": "info registers"})
        return {name: int(value, 16) for name, value in _REGISTER.findall(text)}

    def memory(self, address: int, size: int) -> bytes:
        """Return memory at a virtual address; b"" if none is there.

        QEMU takes an address of the upper half of 64 bits, as a kernel's are, as a negative number
        (memsave's "val" in qapi/machine.json is an "int", which has a sign).
        """
        path = self._folder / "memory"
        try:
            signed = address - (1 << 64) if address >> 63 else address
            self._ask("memsave", val=signed, size=size, filename=str(path))
            return path.read_bytes()
        except (screen.Refused, OSError):
            return b""

    def text(self, address: int, size: int = 128) -> str:
        """Return the string at a virtual address, of at most `size` bytes."""
        inside = 0x1000 - address % 0x1000
        found = self.memory(address, min(size, inside))
        if size > inside and b"\0" not in found:
            found += self.memory(address + inside, size - inside)
        return found.partition(b"\0")[0].decode(errors="replace")


def plugin(binary: str, place: Path) -> Path:
    """Compile the plug-in for a QEMU, unless it is there, and return it.

    Args:
        binary: QEMU.
        place: The folder for it.

    Raises:
        PiggyError: The host's compiler fails.
    """
    found = _VERSION.search(run([binary, "--version"]).output)
    version = 2 if found and int(found[1]) >= _NEWER else 1
    target = place / f"marks-{version}.so"
    if not target.is_file() or target.stat().st_mtime_ns < SOURCE.stat().st_mtime_ns:
        place.mkdir(parents=True, exist_ok=True)
        made = target.with_suffix(f".{os.getpid()}")
        argv = ["cc", "-shared", "-fPIC", "-O2", f"-DAPI_VERSION={version}"]
        run([*argv, "-fvisibility=hidden", "-o", str(made), str(SOURCE)])
        made.replace(target)
    return target


@contextlib.contextmanager
def boot(
    command: Callable[[str, Sequence[str]], Sequence[str]],
    library: Path,
    marks: Marks,
    log: Path,
    most: float,
) -> Iterator[tuple[Iterator[Halted], Callable[[str], None]]]:
    """Boot for the body of a `with`.

    Yields:
        An iterator over the marks as they are reached: the guest is halted until the next step; and
        a function that types a text on the serial line while it is.

    Args:
        command: Returns QEMU's argument vector for a value of -serial and more arguments.
        library: The plug-in.
        marks: Where to halt.
        log: A file for the console's output.
        most: Seconds that the boot may take.

    Raises:
        PiggyError: QEMU can't be started; by the iterator: the guest fails, or says nothing.
    """
    with sockets.folder() as folder, contextlib.ExitStack() as stack:
        pipes = {name: folder / name for name in ("con.in", "con.out", "records", "answers")}
        opened = {}
        for name, path in pipes.items():
            os.mkfifo(path, 0o600)
            opened[name] = os.open(path, os.O_RDWR | os.O_NONBLOCK)
            stack.callback(os.close, opened[name])
        with contextlib.suppress(OSError):
            fcntl.fcntl(opened["con.out"], fcntl.F_SETPIPE_SZ, _PIPE)
        write_whole(folder / "marks", marks.text)
        words = [f"file={sockets.option(library.absolute())}"]
        words += [f"{name}={sockets.option(folder / name)}" for name in _FILES]
        extra = [*COUNTED, "-plugin", ",".join(words)]
        extra += ["-qmp", f"unix:{sockets.option(folder / 'qmp')},server=on,wait=off"]
        argv = command(f"pipe:{folder}/con", extra)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as sink, (log.parent / f"{log.name}.qemu").open("w+b") as said:
            process = stack.enter_context(
                child(argv, stdin=opened["con.in"], stdout=said, stderr=said, env=clean_env())
            )
            # A processor that waits for an answer would keep QEMU from ending.
            stack.callback(os.write, opened["answers"], b"." * 4096)
            ask = _monitor(stack, folder / "qmp", process.poll, argv[0], said)
            guest = Halted(ask, folder, b"")

            def listen() -> None:
                with contextlib.suppress(BlockingIOError):
                    while chunk := os.read(opened["con.out"], 65536):
                        sink.write(chunk)
                        guest.console += chunk

            def halts() -> Iterator[Halted]:
                began = heard = time.monotonic()
                while True:
                    waiting = [opened["records"], opened["con.out"]]
                    ready = select.select(waiting, [], [], 0.5)[0]
                    over = process.poll() is not None
                    listen()
                    if opened["records"] in ready:
                        record = os.read(opened["records"], _RECORD.size)
                        listen()  # what the guest wrote before it was halted
                        guest.address, guest.count = _RECORD.unpack(record)
                        yield guest
                        os.write(opened["answers"], b".")
                    now = time.monotonic()
                    heard = now if ready else heard
                    if over and not ready:
                        _fail(_ended(guest.console, argv[0], process.returncode, said), guest, log)
                    elif now - heard > _SILENCE:
                        _fail(_silent(guest.console, argv[0]), guest, log)
                    elif now - began > most:
                        _fail((f"no shell answered within {most:.0f} s", _LONGER), guest, log)

            def type_(text: str) -> None:
                os.write(opened["con.in"], text.encode())
                until = time.monotonic() + _SILENCE
                left = b"\1\0\0\0"
                while any(left) and time.monotonic() < until:
                    time.sleep(0.005)
                    left = fcntl.ioctl(opened["con.in"], termios.FIONREAD, bytes(4))
                ask("query-status")  # answered when QEMU has passed the text on to the device

            yield halts(), type_
            sink.flush()


def _monitor(
    stack: contextlib.ExitStack,
    path: Path,
    poll: Callable[[], int | None],
    name: str,
    said: BinaryIO,
) -> screen.Monitor:
    """Return QEMU's monitor, as soon as it is there.

    Args:
        stack: Closes it.
        path: Its socket, which QEMU makes before it loads plug-ins.
        poll: Returns QEMU's status; None while it runs.
        name: Its program.
        said: What it says.

    Raises:
        PiggyError: QEMU ended, or does not answer.
    """
    until = time.monotonic() + _SILENCE
    while poll() is None and time.monotonic() < until:
        if path.exists():
            try:
                return stack.enter_context(screen.monitor(path))
            except screen.NotListening:  # the socket comes a moment before QEMU listens at it
                pass
            except PiggyError:
                soon = time.monotonic() + _ENDING
                while poll() is None:
                    if time.monotonic() > soon:
                        raise
                    time.sleep(0.01)
        time.sleep(0.01)
    words = _words(said)
    raise PiggyError(
        f"{name} ended: {words.strip()}",
        "counting needs a QEMU with plug-ins for TCG (--enable-plugins)"
        if "plugin" in words or SOURCE.stem in words
        else "these are QEMU's own words",
    )


def sound(console: bytes, log: Path) -> None:
    """Check that a guest has not failed on its way.

    Raises:
        GuestError: Its kernel had an oops, a panic, or an initramfs that it could not unpack.
    """
    if fault := faults.diagnose(_text(console)):
        raise GuestError(*fault, _text(console), log)


def _fail(fault: faults.Fault, guest: Halted, log: Path) -> None:
    """Raise GuestError for a guest: for what its kernel said, if that tells more than a fault."""
    sound(guest.console, log)
    raise GuestError(*fault, _text(guest.console), log)


def _ended(console: bytes, program: str, status: int, said: BinaryIO) -> faults.Fault:
    """Return the fault of a QEMU that ended: with a status, or negative, by a signal."""
    text = f"{_text(console)}\n{_words(said)}"
    return faults.ended(text, Path(program).name, max(status, 0), max(-status, 0))


def _silent(console: bytes, program: str) -> faults.Fault:
    return faults.silence(_text(console), _SILENCE, Path(program).name)


def _text(console: bytes) -> str:
    return console.decode(errors="replace").replace("\r", "")


def _words(said: BinaryIO) -> str:
    """Return the first words that QEMU itself said."""
    said.seek(0)
    return said.read(2000).decode(errors="replace")
