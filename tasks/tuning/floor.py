"""The least memory that a guest boots and works with, and who uses the memory then.

The least is found by bisection: if it works with so much, it works with more. What uses the memory
is what the guest itself tells: the kernel's line "Memory: ..." (mem_init_print_info() in
mm/page_alloc.c or mm/mm_init.c), and /proc/meminfo (Documentation/filesystems/proc.rst).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from tasks.system.pattern import pattern

_LINE = pattern(r"Memory: \d+K/\d+K available \(([^()\n]{0,300})\)")
_PART = pattern(r"(\d{1,12})K ([a-zA-Z -]{1,40}?)(?:,|$)")
_FIELD = pattern(r"^(\w+(?:\(\w+\))?): +(\d{1,12}) kB", re.MULTILINE)
# Parts of the kernel that stay; its init memory is given to the rest.
_KERNEL = {
    "kernel code": "kernel: code",
    "rwdata": "kernel: data",
    "rodata": "kernel: read-only data",
    "bss": "kernel: bss",
}
_USED = {
    "MemFree": "free",
    "Buffers": "page cache: of devices",
    "Cached": "page cache: files, tmpfs",
    "AnonPages": "programs: their own memory",
    "Slab": "kernel: slab",
    "KernelStack": "kernel: stacks",
    "PageTables": "kernel: page tables",
    "SecPageTables": "kernel: page tables of virtual machines",
    "Percpu": "kernel: per processor",
}


class Trial(msgspec.Struct, frozen=True):
    """A boot with so much memory.

    Attributes:
        memory: KiB.
        passed: Whether it booted and passed all checks.
        seconds: How long that took.
        why: What failed; "" if it passed.
    """

    memory: int
    passed: bool
    seconds: float
    why: str = ""


def least(most: int, step: int, tried: Callable[[int], bool]) -> int:
    """Return the least multiple of `step` with which it works; `most` works.

    Args:
        most: A memory with which it works, in KiB.
        step: The granularity, in KiB.
        tried: Tells whether it works with a memory.
    """
    bad, good = 0, -(-most // step)
    while good - bad > 1:
        middle = (bad + good) // 2
        if tried(middle * step):
            good = middle
        else:
            bad = middle
    return min(most, good * step)


def boots(most: int, step: int) -> int:
    """Return how many boots `least` takes at most."""
    return max(0, -(-most // step) - 1).bit_length()


def users(memory: int, meminfo: str, console: str) -> dict[str, int]:
    """Return what uses the memory of a guest: parts in KiB, whose sum is the memory.

    Args:
        memory: The guest's memory, in KiB.
        meminfo: Its /proc/meminfo.
        console: What it said while booting, in which the kernel's line is looked for.

    Returns:
        Part to KiB, the largest first; {} if /proc/meminfo has no MemTotal.
    """
    fields = {name: int(size) for name, size in _FIELD.findall(meminfo)}
    if "MemTotal" not in fields:
        return {}
    line = _LINE.search(console)
    parts = {name: int(size) for size, name in _PART.findall(line[1] if line else "")}
    found = {text: parts[name] for name, text in _KERNEL.items() if name in parts}
    outside = memory - fields["MemTotal"]
    rest = "kernel: reserved at boot" if found else "kernel, and reserved at boot"
    found[rest] = outside - sum(found.values())
    inside = {text: fields[name] for name, text in _USED.items() if name in fields}
    found["kernel: other pages"] = fields["MemTotal"] - sum(inside.values())
    found |= inside
    return dict(sorted(((name, size) for name, size in found.items() if size), key=lambda p: -p[1]))
