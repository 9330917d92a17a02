"""Which line of a start script runs a program, by the words of its command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

from msgspec.structs import replace

from tasks.system.pattern import pattern
from tasks.tuning.boot import Bar

_SHELLS = ("sh", "ash", "bash", "dash")
# A variable as the command, as in `"$script" start`.
_VARIABLE = pattern(
    r"""(?:^|[;&|(){!]|\b(?:then|do|else|if|while|until|exec|nice)\s)\s*"?\$\{?\w+\}?"?(?=[\s;&|)]|$)"""
)
_WORD = pattern(r"""[\w./:=@%+,~^-]+""")


def explained(found: Sequence[Bar], text: Callable[[str], tuple[str, str]]) -> Iterator[Bar]:
    """Yield bars, the programs with the script and line that run them, where one line fits best.

    Args:
        found: The bars.
        text: Returns the name and text of a script by its path in the guest; "" for none.
    """
    scripts: list[tuple[int, int, str, str]] = []  # from, to, name, text
    programs: list[tuple[int, int]] = []  # what is no script: from, to
    for bar in found:
        if bar.kind != "program":
            yield bar
            continue
        end = bar.start + bar.instructions
        around = [one for one in scripts if one[0] <= bar.start < one[1]]
        reason = ""
        # A script that begins while a program of the outer script runs may be that program's, as
        # those of udhcpc are. A login shell ("-sh") is init's.
        foreign = script(bar.name) and any(
            around and around[-1][0] < one[0] <= bar.start < one[1] for one in programs
        )
        if around and not foreign and not bar.name.startswith("-"):
            _, _, name, content = around[-1]
            number = line_of(content, bar.name)
            reason = f"{name}:{number}" if number else ""
        if path := script(bar.name):
            name, content = text(path)
            if content:
                scripts.append((bar.start, end, name, content))
        else:
            programs.append((bar.start, end))
        yield replace(bar, reason=reason)


def script(command: str) -> str:
    """Return the script that a command line runs; "" if it is none."""
    words = command.split()
    if len(words) < 2 or PurePosixPath(words[0]).name not in _SHELLS:
        return ""
    return words[1] if words[1].startswith("/") else ""


def line_of(content: str, command: str) -> int:
    """Return the line of a script that runs a command; 0 if none is the only best one.

    The line names the program, and more of the command's words than any other line. Where none
    names a script, it is the line that runs a variable with all of the script's arguments.

    Args:
        content: The script.
        command: The command line, as the kernel was given it.
    """
    words = command.split()
    if script(command):
        words = words[1:]
    program = PurePosixPath(words[0].lstrip("-")).name if words else ""
    rest = {word for word in _WORD.findall(" ".join(words[1:])) if word}
    best, variable = dict[int, int](), dict[int, int]()
    for number, line in enumerate(content.splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        there = _WORD.findall(line)
        if program in (PurePosixPath(word).name for word in there):
            best[number] = len(rest & set(there))
        elif rest and script(command) and _VARIABLE.search(line) and rest.issubset(there):
            variable[number] = 0
    best = best or variable
    most = max(best.values(), default=0)
    fits = [number for number, count in best.items() if count == most]
    return fits[0] if len(fits) == 1 else 0
