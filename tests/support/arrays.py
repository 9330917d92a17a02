"""C code with an array of some size: what is made from it gets other sizes, across pages, too."""

from __future__ import annotations

import random
import re

SIZES = (1, 100, 4095, 4096, 5000, 20_000, 70_000, 300_000)
# What a line puts N bytes into; {0} is a name, {1} is N.
SECTIONS = {
    ".data": "static char {0}[{1}] __attribute__((used)) = {{1}};",
    ".bss": "static char {0}[{1}] __attribute__((used));",
    ".rodata": "static const char {0}[{1}] __attribute__((used)) = {{1}};",
    ".init.data": 'static char {0}[{1}] __attribute__((used, section(".init.data"))) = {{1}};',
    ".text": 'asm(".pushsection .text\\n{0}: .fill /*[*/ {1} /*]*/, 1, 0x90\\n.popsection");',
}
_SIZED = re.compile(r"(campaign_size_\w+(?:: \.fill /\*)?\[(?:\*/ )?)(\d+)")


def resize(rng: random.Random, text: str) -> tuple[str, str]:
    """Return C code with an array of another size, or with one more, and what was done to it."""
    size = rng.choice(SIZES) + rng.randrange(8)
    if (found := _SIZED.search(text)) and rng.random() < 0.6:
        return text[: found.start(2)] + str(size) + text[found.end(2) :], f"{found[2]} -> {size}"
    section = rng.choice(sorted(SECTIONS))
    name = f"campaign_size_{rng.getrandbits(40):010x}"
    return f"{text}\n{SECTIONS[section].format(name, size)}\n", f"{size} bytes of {section}"
