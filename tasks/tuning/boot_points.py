"""Where a boot is cut into parts: addresses in the kernel, by its symbols.

Names of functions are those of Linux 6.1 and its neighbours. A function that a kernel has not, or
that its compiler put into another one, is left out, and its part counts for the one before.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Mapping

import msgspec

from tasks.guest.marks import Marks
from tasks.tuning.elf import Elf

# Where a part of the boot begins (init/main.c), in this order.
PARTS = {
    "start_kernel": "start_kernel",
    "console_on_rootfs": "root file system",
    "free_initmem": "init memory freed",
    "run_init_process": "init",
}
LEVELS = ("early", "pure", "core", "postcore", "arch", "subsys", "fs", "rootfs", "device", "late")
_TABLES = (
    "early",
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "rootfs",
    "6",
    "7",
)  # include/asm-generic/vmlinux.lds.h
# What else is told: the function, and what it says.
EVENTS = {
    "really_probe": "probe",  # drivers/base/dd.c
    "__set_task_comm": "program",  # fs/exec.c, from begin_new_exec()
    "exit_signals": "exit",  # kernel/signal.c, from do_exit()
    "n_tty_poll": "tty",  # drivers/tty/n_tty.c: somebody waits for what is typed
    "n_tty_read": "tty",
}
ARGUMENTS = "start_thread"  # fs/binfmt_elf.c: the new program's stack is ready; a function on x86
CALLER = "do_one_initcall"  # init/main.c
# QEMU's names of the registers with a function's first three arguments. The i386 kernel is compiled
# with -mregparm=3 (arch/x86/Makefile).
REGISTERS: Mapping[str, tuple[str, str, str]] = {
    "i386": ("EAX", "EDX", "ECX"),
    "x86_64": ("RDI", "RSI", "RDX"),
    "arm": ("R00", "R01", "R02"),
    "arm64": ("X00", "X01", "X02"),
    "riscv": ("x10/a0", "x11/a1", "x12/a2"),
}
X86 = ("i386", "x86_64")
_SETUP = 0x10200  # hw/i386/x86.c, x86_load_linux(): setup.bin behind its first sector
_LOADED = 0x100000  # the same: the part in protected mode (code32_start)


class Point(msgspec.Struct, frozen=True):
    """A place in the kernel.

    Attributes:
        what: "part", "loader", "caller", "initcall", "arguments", or a value of EVENTS.
        name: The part, or the function.
        level: Of an initcall.
    """

    what: str
    name: str
    level: str = ""


class Points(msgspec.Struct, frozen=True):
    """All places of one kernel.

    Attributes:
        at: By address.
        marks: The same for marks.py.
        wide: Bytes of a pointer.
        order: The order of bytes, as `struct` writes it.
        ticks: The address of the kernel's count of ticks; 0 if unknown.
        current: The address of the pointer to the process that runs; 0 if unknown.
        data: The variables: address, the address behind, name; by address.
    """

    at: dict[int, Point]
    marks: Marks
    wide: int
    order: str
    ticks: int
    current: int = 0
    data: tuple[tuple[int, int, str], ...] = ()

    def variable(self, address: int) -> str:
        """Return the name of the variable that an address lies in; "" for none."""
        place = bisect_right(self.data, address, key=lambda one: one[0])
        start, end, name = self.data[place - 1] if place else (0, 0, "")
        return name if start <= address < end else ""


def points(kernel: Elf, config: Mapping[str, str], arch: str, image: str) -> Points:
    """Return the places of a kernel.

    Args:
        kernel: vmlinux.
        config: Its configuration.
        arch: The machine's architecture.
        image: The link of the chain that is booted.
    """
    wide, order = 8 if kernel.data[4] == 2 else 4, "<" if kernel.data[5] == 1 else ">"
    where = kernel.addresses
    at = {where[name]: Point("part", part) for name, part in PARTS.items() if name in where}
    at |= {where[name]: Point(what, name) for name, what in EVENTS.items() if name in where}
    if arch in X86:
        at |= {where[name]: Point("arguments", name) for name in (ARGUMENTS,) if name in where}
        at |= _loader(kernel, image)
    calls = _initcalls(kernel, "HAVE_ARCH_PREL32_RELOCATIONS" in config, wide, order)
    calls = {address: call for address, call in calls.items() if address not in at}
    sizes = {symbol.name: symbol.size for symbol in kernel.symbols}
    start = where.get(CALLER, 0)
    at |= {start: Point("caller", CALLER)} if start else {}
    # What is executed at its first instruction has not come back to it.
    back = (start + 1, start + sizes.get(CALLER, 0))
    marks = Marks(tuple(sorted(at)), tuple(sorted(calls)), back)
    at |= calls
    # arch/x86/include/asm/current.h; with SMP each processor has its own
    current = where.get("current_task", 0) if arch in X86 and config.get("SMP") != "y" else 0
    data = sorted(
        (symbol.address, symbol.address + symbol.size, symbol.name)
        for symbol in kernel.symbols
        if symbol.section < len(kernel.sections) and kernel.sections[symbol.section].write
    )
    return Points(at, marks, wide, order, where.get("jiffies", 0), current, tuple(data))


def _loader(kernel: Elf, image: str) -> dict[int, Point]:
    """Return the places before start_kernel on x86, by physical address."""
    text = next((one for one in kernel.sections if one.name == ".text"), None)
    first = [
        kernel.addresses[name] for name in ("startup_32", "startup_64") if name in kernel.addresses
    ]
    at: dict[int, Point] = {}
    if text:
        moved = text.load - text.address
        at |= {address + moved: Point("loader", "kernel entry") for address in first}
        if image == "vmlinux" and "pvh_start_xen" in kernel.addresses:
            at[kernel.addresses["pvh_start_xen"] + moved] = Point("loader", "kernel entry")
    if image == "bzImage":
        at[_LOADED] = Point("loader", "kernel entry")
        at[_SETUP] = Point("loader", "setup code")
    return at


def _initcalls(kernel: Elf, relative: bool, wide: int, order: str) -> dict[int, Point]:
    """Return the initcalls by address, from the table that do_initcalls() goes through.

    Args:
        kernel: vmlinux.
        relative: Whether the table has offsets of 32 bits to itself (PREL32).
        wide: Bytes of a pointer.
        order: The order of bytes.
    """
    names = {symbol.address: symbol.name for symbol in reversed(kernel.symbols)}
    # The first table begins at __initcall_start; the last one ends at __initcall_end.
    starts = [("early", kernel.addresses.get("__initcall_start"))]
    starts += [(name, kernel.addresses.get(f"__initcall{name}_start")) for name in _TABLES[1:]]
    known = [
        (level, start)
        for level, (_, start) in zip(LEVELS, starts, strict=True)
        if start is not None
    ]
    end = kernel.addresses.get("__initcall_end")
    if not known or end is None:
        return {}
    found: dict[int, Point] = {}
    size = 4 if relative else wide
    form = order + ("i" if relative else "I" if wide == 4 else "Q")
    section = next(
        (s for s in kernel.sections if s.address <= known[0][1] < s.address + s.size), None
    )
    if section is None:
        return {}
    content = kernel.content(section)
    stops = [start for _, start in known[1:]] + [end]
    for (level, start), stop in zip(known, stops, strict=True):
        for place in range(start, stop, size):
            (value,) = struct.unpack_from(form, content, place - section.address)
            address = place + value if relative else value
            found[address] = Point("initcall", names.get(address, f"{address:#x}"), level)
    return found
