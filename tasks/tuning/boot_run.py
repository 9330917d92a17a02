"""Boot and count: from QEMU halted at the marks to the events of a boot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tasks.guest import marks
from tasks.guest.marks import Halted
from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern
from tasks.tuning.boot import Event
from tasks.tuning.boot_points import REGISTERS, Point, Points

_PROMPT = pattern(rb"(?:^|\n)[^\n]{0,60}[#$] (?:\x1b\[6n)?$")
_ENTER = b"Please press Enter to activate this console"  # busybox init, "askfirst"
_WORDS = 40  # of a command line
_LONGEST = 120  # characters of a command line


def record(
    command: Callable[[str, Sequence[str]], Sequence[str]],
    library: Path,
    points: Points,
    arch: str,
    log: Path,
    most: float,
) -> list[Event]:
    """Boot to the shell's first answer, and return what happened; the last event is the answer.

    When the shell waits for input after its prompt, Enter is typed while the guest is halted; the
    answer is there when the shell waits again after another prompt.

    Args:
        command: See `marks.boot`.
        library: The plug-in.
        points: The places to halt at.
        arch: The machine's architecture.
        log: A file for the console's output.
        most: Seconds that the boot may take.

    Raises:
        PiggyError: The guest fails; an oops is a failure, too, though a shell may answer after it.
    """
    teller = _Teller(points, arch)
    typed = -1  # characters on the serial line when Enter was typed
    with marks.boot(command, library, points.marks, log, most) as (halts, type_text):
        for guest in halts:
            point = points.at.get(guest.address, Point("back", ""))
            if point.what != "tty":
                teller.tell(guest, point)
                continue
            prompt = _PROMPT.search(guest.console)
            if typed < 0 and (prompt or _ENTER in guest.console):
                typed = len(guest.console) if prompt else -1
                type_text("\n")
            elif 0 <= typed < len(guest.console) and prompt:
                teller.add(guest, "end", "answer")
                marks.sound(guest.console, log)
                return teller.events
    raise AssertionError("the halts end with an error")


class _Teller:
    """What the marks of a boot mean, in the order in which they are reached.

    Attributes:
        events: The events so far.
    """

    def __init__(self, points: Points, arch: str) -> None:
        self.events: list[Event] = []
        self._points, self._names = points, REGISTERS.get(arch, ())
        self._mapped = self._called = self._inside = False
        self._last = 0  # the kernel's ticks
        self._unnamed = 0  # how many events there were after the last one that named a program
        self._loaders = iter(("decompression", "kernel entry"))

    def tell(self, guest: Halted, point: Point) -> None:
        """Add the event of a mark."""
        if point.what == "loader":
            self._loader(guest, point)
        elif point.what == "part":
            self._mapped = True
            self.add(guest, "part", point.name)
        elif point.what == "caller":
            self._called = True
        elif point.what == "initcall":
            # setup_arch() calls static_call_init(), which is an initcall as well
            # (arch/x86/kernel/setup.c): only what do_one_initcall() calls is told.
            if self._called:
                self._called, self._inside = False, True
                self.add(guest, "initcall", point.name, point.level)
        elif point.what == "back":
            if self._inside:
                self._inside = False
                self.add(guest, "back", "")
        elif values := self._arguments(guest):
            self._with_arguments(guest, point, *values)

    def _with_arguments(
        self, guest: Halted, point: Point, first: int, second: int, third: int
    ) -> None:
        if point.what == "probe":
            device = guest.text(self._pointer(guest, first))
            driver = guest.text(self._pointer(guest, second))
            self.add(guest, "probe", f"{driver} {device}", holder=self._points.variable(second))
        elif point.what == "program" and third & 0xFF:
            self.add(guest, "program", guest.text(second), task=first)
            self._unnamed = len(self.events)
        elif point.what == "exit":
            self.add(guest, "exit", "", task=first)
        elif point.what == "arguments":
            self._program(guest, " ".join(self._words(guest, third)))

    def _program(self, guest: Halted, words: str) -> None:
        """Give the program that was just begun its whole command line.

        Where the compiler put the function that names a program into its caller (-O2 does), this is
        the first that is seen of it.
        """
        here = len(self.events)
        if not here or not words:
            return
        if self._unnamed == here:
            last = self.events[-1]
            if len(last.name) < 200:
                self.events[-1] = _named(last, words[:_LONGEST])
        elif self._points.current and not self._unnamed:
            task = self._pointer(guest, self._points.current)
            self.add(guest, "program", words[:_LONGEST], task=task)

    def _loader(self, guest: Halted, point: Point) -> None:
        """Add the entry of the loader, or of the kernel, which may lie at the same address."""
        if point.name == "setup code":
            if not self.events:
                self.add(guest, "part", point.name)
        elif not self._mapped:
            if not self.events:  # no bzImage: the firmware went straight to the kernel
                next(self._loaders)
            if name := next(self._loaders, ""):
                self.add(guest, "part", name)

    def add(
        self,
        guest: Halted,
        what: str,
        name: str,
        level: str = "",
        task: int = 0,
        holder: str = "",
    ) -> None:
        """Add an event at the guest's present count."""
        ticks = self._tick(guest) if self._mapped and self._points.ticks else 0
        serial = len(guest.console)
        self.events.append(Event(what, name, guest.count, ticks, serial, level, task, holder))

    def _tick(self, guest: Halted) -> int:
        """Return the kernel's ticks, which go on where its own count of 32 bits begins anew.

        That is after 300 seconds (INITIAL_JIFFIES, include/linux/jiffies.h).
        """
        if data := guest.memory(self._points.ticks, self._points.wide):
            whole = 1 << 8 * self._points.wide
            self._last += (self._number(data) - self._last) % whole
        return self._last

    def _arguments(self, guest: Halted) -> list[int]:
        """Return a function's first three arguments; [] where the registers are not known."""
        registers = guest.registers() if self._names else {}
        found = [registers[name] for name in self._names if name in registers]
        return found if len(found) == len(self._names) else []

    def _number(self, data: bytes) -> int:
        return int.from_bytes(data, "little" if self._points.order == "<" else "big")

    def _pointer(self, guest: Halted, address: int) -> int:
        return self._number(guest.memory(address, self._points.wide))

    def _words(self, guest: Halted, stack: int) -> Iterator[str]:
        """Yield a new program's command line (create_elf_tables(), fs/binfmt_elf.c)."""
        wide = self._points.wide
        many = self._pointer(guest, stack)
        for number in range(1, min(many, _WORDS) + 1):
            yield guest.text(self._pointer(guest, stack + number * wide))


def _named(event: Event, name: str) -> Event:
    return Event(event.what, name, event.count, event.tick, event.bytes, event.level, event.task)


def refuse_random(config: Mapping[str, str], argv: Sequence[str]) -> None:
    """Check that the kernel lies where vmlinux has it.

    Args:
        config: The kernel's configuration.
        argv: QEMU's argument vector, with the kernel's command line.

    Raises:
        PiggyError: It places itself at random (RANDOMIZE_BASE), so nothing would be found in it.
    """
    if config.get("RANDOMIZE_BASE") == "y" and not any("nokaslr" in one.split() for one in argv):
        raise PiggyError(
            "the kernel places itself at random (RANDOMIZE_BASE): nothing is found in it",
            "append=nokaslr has it stay in its place",
        )


def incomplete(points: Points, arch: str) -> list[str]:
    """Return in words what can't be told of a kernel.

    Raises:
        PiggyError: Nothing can be told: it has no symbols.
    """
    told = {point.what for point in points.at.values()}
    if not told:
        raise PiggyError("vmlinux has no symbols", "the kernel must not be stripped")
    found = []
    if "initcall" not in told or points.marks.back[1] <= points.marks.back[0]:
        found.append("the initcalls can't be told: their table or do_one_initcall is not found")
    if arch not in REGISTERS:
        found.append(
            f"probes and programs can't be named: the arguments' registers of {arch} are not known"
        )
    elif missing := sorted({"probe", "program", "exit"} - told):
        found.append(f"not told, as the compiler left no symbol: {', '.join(missing)}")
    if "tty" not in told:
        raise PiggyError(
            "the kernel has no n_tty_poll: when its shell answers can't be told", "CONFIG_TTY=y"
        )
    return found


def unseen(events: Sequence[Event], points: Points) -> list[str]:
    """Return in words what a boot should have shown, and has not.

    A function that the compiler put into its caller keeps its symbol, but is never reached.
    """
    if "program" in {point.what for point in points.at.values()} and not any(
        event.what == "program" for event in events
    ):
        why = "the compiler put the function that names them into its caller, as -O2 does"
        return [f"no program was told: {why} (CONFIG_CC_OPTIMIZE_FOR_SIZE=y leaves it)"]
    return []
