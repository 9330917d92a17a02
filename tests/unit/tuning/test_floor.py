"""The least memory by bisection, and the parts of a guest's memory, whose sum it is."""

from __future__ import annotations

import pytest

from tasks.tuning import floor

CONSOLE = (
    "[    0.000000] Memory: 24900K/32248K available (1759K kernel code, 130K rwdata, 268K rodata,"
    " 172K init, 88K bss, 7092K reserved, 0K cma-reserved)\r\n"
)
MEMINFO = """\
MemTotal:          25244 kB
MemFree:           21000 kB
Buffers:             100 kB
Cached:              700 kB
Active(anon):          8 kB
AnonPages:            68 kB
Slab:                636 kB
KernelStack:         200 kB
PageTables:           48 kB
"""


@pytest.mark.parametrize("step", [128, 256, 1000])
@pytest.mark.parametrize("most", [8 << 10, 32 << 10, (32 << 10) + 17, 100])
def test_least(most: int, step: int) -> None:
    for floor_ in {1, 100, most // 3 + 1, most - 1, most}:
        tried: list[int] = []

        def works(memory: int, floor_: int = floor_, tried: list[int] = tried) -> bool:
            tried.append(memory)
            return memory >= floor_

        found = floor.least(most, step, works)
        assert found >= floor_
        assert found - step < floor_
        assert found == most or found % step == 0
        assert len(tried) <= floor.boots(most, step)
        assert len(set(tried)) == len(tried)


def test_users_add_up() -> None:
    found = floor.users(32768, MEMINFO, CONSOLE)
    assert sum(found.values()) == 32768
    assert found["free"] == 21000
    assert found["kernel: code"] == 1759
    assert found["kernel: reserved at boot"] == 32768 - 25244 - 1759 - 130 - 268 - 88
    assert found["kernel: other pages"] == 25244 - 21000 - 100 - 700 - 68 - 636 - 200 - 48
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_users_of_a_silent_kernel() -> None:
    """With CONFIG_PRINTK=n, or the word quiet."""
    found = floor.users(32768, MEMINFO, "")
    assert sum(found.values()) == 32768
    assert found["kernel, and reserved at boot"] == 32768 - 25244


@pytest.mark.parametrize("text", ["", "MemTotal: x kB\n", "MemTotal:\n", "\0" * 50])
def test_users_of_nonsense(text: str) -> None:
    assert floor.users(4096, text, CONSOLE) == {}
