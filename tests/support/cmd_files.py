"""Write .cmd files as Kbuild leaves them."""

from __future__ import annotations

import os
from pathlib import Path


def fixdep(
    target: str, *names: str, word: str = "cmd", symbols: tuple[str, ...] = ("SMP", "64BIT")
) -> str:
    """A .cmd file as scripts/basic/fixdep.c writes it."""
    folder, base = os.path.split(target)
    command = f"gcc -Wp,-MMD,{folder}/.{base}.d -Iinclude -c -o {target} {names[0]}"
    lines = [
        f"{word}_{target} := {command}",
        "",
        f"source_{target} := {names[0]}",
        "",
        f"deps_{target} := \\",
    ]
    lines += [f"    $(wildcard include/config/{symbol}) \\" for symbol in symbols]
    lines += [f"  {name} \\" for name in names[1:]]
    return "\n".join([*lines, "", f"{target}: $(deps_{target})", "", f"$(deps_{target}):", ""])


def put(path: Path, text: str = "x", when: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if when:
        os.utime(path, ns=(when, when))
    return path
