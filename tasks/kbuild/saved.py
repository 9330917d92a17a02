"""Parser of Kbuild's saved commands, and the shell script that runs one again.

Kbuild writes beside a target X the file .X.cmd. With `if_changed` it has the command only. With
`if_changed_dep`, fixdep writes it after the command, with the command and the dependencies from the
compiler's depfile. Source: scripts/Kbuild.include (cmd_and_savecmd, cmd_and_fixdep),
scripts/basic/fixdep.c; the same from 5.10 to 6.12.
"""

from __future__ import annotations

import os
import re
import shlex

import msgspec

from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern

FIXDEP = "scripts/basic/fixdep"
_RECORD = pattern(
    r"((?:saved)?cmd_(?P<t>\S+) :=) (?P<text>[^\n]+)\n"
    r"(?P<lists>\n(?:source_(?P=t) := (?P<source>[^\n]*)\n\n)?deps_(?P=t) := \\\n(?:[^\n]* \\\n)*\n"
    r"(?P=t): \$\(deps_(?P=t)\)\n\n\$\(deps_(?P=t)\):\n)?"
    r"(?P<tail>\s*|\n*(?P=t): \$\(wildcard [^()$\s]+\)\n)"
)  # the last is what gen_objtooldep of scripts/Makefile.lib adds
_WORD = pattern(r"[\w./+@%~,:-]*[\w]")


class Unfamiliar(PiggyError):
    """A case that only make can handle; the message names it."""


class Saved(msgspec.Struct, frozen=True):
    """A parsed .cmd file.

    Attributes:
        target: The target, as Kbuild spells it.
        key: `cmd_X :=` or `savedcmd_X :=`.
        text: The command, as the file has it.
        command: The command for the shell.
        lists: Whether fixdep wrote the file.
        source: The compiled source, by fixdep; "" for none.
        tail: The text after the lists.
    """

    target: str
    key: str
    text: str
    command: str
    lists: bool = False
    source: str = ""
    tail: str = ""

    @property
    def record(self) -> str:
        """The .cmd file, relative to the object folder."""
        return self._beside("cmd")

    @property
    def depfile(self) -> str:
        """The compiler's depfile: $(depfile) of scripts/Kbuild.include."""
        return self._beside("d").replace(",", "_")

    @property
    def compiles(self) -> bool:
        """Whether the command compiles an object from C or assembler."""
        return self.target.endswith(".o") and self.source.endswith((".c", ".S"))

    def words(self) -> set[str]:
        """Return the words of the command that may name files in the object folder, normalised."""
        return {os.path.normpath(word) for word in _WORD.findall(self.command)}

    def script(self, check: str = "", ran: bool = False) -> str:
        """Return a shell script, for the object folder: the command, then the .cmd file's update.

        Args:
            check: A command to run on the target at the end; "" for none.
            ran: Whether the command has run, and is left out.
        """
        lines = ["set -e", *([] if ran else [self.command])]
        if self.lists:
            lines += [
                f"{FIXDEP} {self.depfile} {self.target} {shlex.quote(self.text)} > {self.record}",
                f"rm -f {self.depfile}",
            ]
        else:
            lines.append(f"printf '%s\\n' {shlex.quote(f'{self.key} {self.text}')} > {self.record}")
        if self.tail:
            lines.append(f"printf '%s' {shlex.quote(self.tail)} >> {self.record}")
        if check:
            lines.append(f"{check} {self.target}")
        return "\n".join(lines)

    def _beside(self, suffix: str) -> str:
        folder, name = os.path.split(self.target)
        return os.path.join(folder, f".{name}.{suffix}")


def read(record: str) -> Saved:
    """Parse a .cmd file.

    Raises:
        Unfamiliar: It is missing, or has another form.
    """
    try:
        with open(record, encoding="utf-8") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError):
        raise Unfamiliar(f"{record} can't be read") from None
    match = _RECORD.fullmatch(text)
    if not match:
        raise Unfamiliar(f"{record} holds something else than a command and its dependencies")
    target = match["t"]
    if re.search(r"[\s'\"$\\*?;&|<>(){}#:]", target):
        raise Unfamiliar(f"the target {target} has a character in it that is special")
    return Saved(
        target,
        match[1],
        match["text"],
        unescaped(match["text"], record),
        match["lists"] is not None,
        match["source"] or "",
        match["tail"],
    )


def unescaped(text: str, record: str = "") -> str:
    """Return a saved command as make passes it to the shell: `$$` is `$`, `$(pound)` is `#`.

    Args:
        text: The saved command.
        record: Its .cmd file, for the message.

    Raises:
        Unfamiliar: Make would have to expand anything else.
    """

    def plain(found: re.Match[str]) -> str:
        if found[1] not in ("$", "(pound)"):
            raise Unfamiliar(f"the command in {record} has to be expanded by make")
        return "$" if found[1] == "$" else "#"

    return re.sub(r"\$(\$|\(pound\)|)", plain, text)
