"""The commands that scripts of the root filesystem call, and those that busybox was built without.

The shell's grammar (POSIX, Shell Command Language) is followed as far as it takes to know which
words are commands: quotes, substitutions, here-documents, `case`, functions, assignments. What a
variable names is not known. A script that asks for a program first (`command -v X`, `type X`,
`which X`, `[ -x /bin/X ]`) does without it, and may call it. What a script defines as a function or
an alias is no applet; if it reads another file (`. FILE`), what any file defines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.filesystem import tree
from tasks.filesystem.tree import Entry
from tasks.system.pattern import pattern

PROGRAMS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin")
PLACES = ("bin", "sbin")  # folders that a PATH may have
LONGEST = 1 << 20  # bytes of a script
# Builtins of ash that are always there; CHOSEN: those that are by a symbol of their own.
_BUILTINS = """. : bg break cd chdir command continue eval exec exit export false fg getopts hash
    jobs let local pwd read readonly return set shift source times trap true type ulimit umask
    unalias unset wait"""
BUILTINS = frozenset(_BUILTINS.split())
CHOSEN = {"echo": "ASH_ECHO", "printf": "ASH_PRINTF", "test": "ASH_TEST", "[": "ASH_TEST"}
CHOSEN |= {"[[": "ASH_TEST", "kill": "ASH_JOB_CONTROL"}
_SHEBANG = pattern(rb"#![ \t]*/(usr/)?bin/((env|busybox)[ \t]+)?(ba|da|a|hu)?sh\b")
_PROGRAM = pattern(r"#![ \t]*/(?:usr/)?s?bin/(?:env[ \t]+(?:-S[ \t]+)?)?([\w.+-]+)")
_OPENS = frozenset({"if", "then", "elif", "else", "while", "until", "do", "!", "{"})
_RUNS = frozenset(
    "busybox command env eval exec nice nohup setsid time timeout xargs".split()  # noqa: SIM905
)
_SECONDS = pattern(r"[0-9.]+[smhd]?")  # of timeout
# Letters of their options that take the next word (busybox's usage texts).
_VALUED = {"nice": "n", "timeout": "sk", "time": "fo", "env": "u", "xargs": "nsIEPa"}
_ASKS = pattern(r"(?:\b(?:command[ \t]+-v|type|which|hash)|(?<=[ \t])-x)[ \t]+[\"']?([\w./+-]+)")
_DEFINES = pattern(
    r"^[ \t]*(?:(?:function[ \t]+)?([\w.+-]+)[ \t]*\([ \t]*\)|function[ \t]+([\w.+-]+)"
    r"|alias[ \t]+([\w.+-]+)=)",
    re.M,
)
_APPLET = pattern(rb"^//applet:IF_\w+\(APPLET\w*\(([^,\s]+)\s*,", re.M)
_TOKEN = pattern(
    r"""(?P<blank>[ \t]+|\\\n)|(?P<comment>\#[^\n]*)
    |(?P<here><<(?P<tabs>-?)[ \t]*(?P<end>'[^'\n]*'|"[^"\n]*"|[^\s;&|()<>]+))
    |(?P<redirect>\d*(?:>>|>&|<&|<>|>\||[<>])[ \t]*)|(?P<operator>;;|&&|\|\||[\n;&|()])""",
    re.X,
)
_ASSIGNMENT = pattern(r"[A-Za-z_]\w*\+?=")


class Call(msgspec.Struct, frozen=True):
    """A command that a script calls: its name, and the number of the line."""

    name: str
    line: int


def missing(
    entries: Sequence[Entry], applets: Collection[str], config: dict[str, str]
) -> list[tuple[str, Call]]:
    """Return the calls of applets that busybox could have and was built without.

    Args:
        entries: The root filesystem.
        applets: Every applet of busybox (see `applets_of`).
        config: The configuration of busybox.

    Returns:
        The path of each script, and the call.
    """
    there = {
        os.path.basename(entry.path)
        for entry in entries
        if os.path.basename(os.path.dirname(entry.path)) in PLACES
    }
    there |= BUILTINS | {
        name
        for name, symbol in CHOSEN.items()
        if "y" in (config.get(symbol), config.get(symbol.replace("ASH_", "HUSH_")))
    }
    found, readers = [], set()
    for entry in entries:
        if entry.kind == "file":
            calls = called(entry)
            if any(call.name in (".", "source") for call in calls):
                readers.add(entry.path)
            found += [
                (entry.path, call)
                for call in calls
                if call.name in applets and call.name not in there
            ]
    if any(path in readers for path, _ in found):
        shared = {name for entry in entries if entry.kind == "file" for name in _defined(entry)}
        found = [
            (path, call) for path, call in found if path not in readers or call.name not in shared
        ]
    return found


def applets_of(source: Path) -> frozenset[str]:
    """Return the names of all applets of a busybox tree, from the comments that its build reads.

    Source: scripts/gen_build_files.sh of busybox, "//applet:".
    """
    return frozenset(
        name.decode() for path in source.rglob("*.c") for name in _APPLET.findall(path.read_bytes())
    )


def off_in(config: Mapping[str, str]) -> frozenset[str]:
    """Return the names that applets have which a configuration leaves out.

    An applet is named as its symbol in small letters, some with hyphens, but for a few such as `[`
    and `fsck.minix`.

    Args:
        config: The configuration, with the symbols that are off.
    """
    off = [name.lower() for name, value in config.items() if value == "n"]
    return frozenset([*off, *(name.replace("_", "-") for name in off)])


def _defined(entry: Entry) -> set[str]:
    """Return the functions and aliases of a file that the shell could read."""
    data = b"" if tree.size(entry) > LONGEST else tree.content(entry)
    return set() if b"\0" in data else _definitions(data.decode(errors="replace"))


def _definitions(text: str) -> set[str]:
    return {name for names in _DEFINES.findall(text) for name in names if name}


def _program(path: str) -> bool:
    return os.path.dirname(path) in PROGRAMS


def called(entry: Entry) -> list[Call]:
    """Return what a file calls if it is a script of the shell or the table of init, each once."""
    if tree.size(entry) > LONGEST:
        return []
    data = tree.content(entry)
    text = data.decode(errors="replace")
    if entry.path == "/etc/inittab":
        calls = list(_inittab(text))
    elif _SHEBANG.match(data) or entry.path == "/etc/profile":
        asks = _ASKS.findall(_without_comments(text))
        asked = {os.path.basename(name) for name in asks} | _definitions(text)
        try:
            shell = _Shell(text)
        except RecursionError:  # no script that anybody wrote
            return []
        asked |= shell.functions
        calls = [call for call in shell.calls if call.name not in asked]
    else:
        program = _PROGRAM.match(text) if entry.mode & 0o111 else None
        calls = [Call(program[1], 1)] if program else []
    return list({call.name: call for call in reversed(calls)}.values())[::-1]


def _without_comments(text: str) -> str:
    """Return a script without its comments, as far as a line's own quotes tell them."""
    lines = []
    for line in text.splitlines():
        ends = (match.start() for match in re.finditer(r"(?<!\S)#", line))
        end = next((one for one in ends if not _open_quotes(line[:one])), len(line))
        lines.append(line[:end])
    return "\n".join(lines)


def _open_quotes(text: str) -> bool:
    return any(text.count(quote) % 2 for quote in "'\"`")


def _inittab(text: str) -> Iterator[Call]:
    """Yield the programs of an inittab: TERMINAL::ACTION:COMMAND (busybox, init/init.c)."""
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split(":", 3)
        if len(fields) == 4 and not line.startswith("#") and fields[3].split():
            yield Call(os.path.basename(fields[3].split()[0].lstrip("-")), number)


class _Shell:
    """The calls and the functions of a script; built from its text."""

    def __init__(self, text: str, line: int = 1) -> None:
        self.calls: list[Call] = []
        self.functions: set[str] = set()
        self.text, self.place, self.line = text, 0, line
        self.first = True  # a command may begin here
        self.redirected = False  # the next word is a file
        self.cases: list[bool] = []  # for each open `case`: whether a pattern comes next
        # Words that end here-documents, which begin at the next line; a pattern of what may stand
        # before each.
        self.heres: list[tuple[str, str]] = []
        self.runs = ""  # a program of _RUNS, whose command comes
        self.skip = ""  # words up to this one are no commands: of `for`, `case`
        while self.place < len(text):
            self._step()

    def _step(self) -> None:
        token = _TOKEN.match(self.text, self.place)
        if not token:
            self._word()
            return
        self.place = token.end()
        self.line += token[0].count("\n")
        if token["here"]:
            self.heres.append((token["end"], r"\t*" if token["tabs"] else ""))
        elif token["redirect"]:
            self.redirected = True
        elif operator := token["operator"]:
            self._operator(operator)

    def _operator(self, operator: str) -> None:
        if operator == "\n" and self.heres:
            self._here_documents()
        if self.cases and self.cases[-1] and operator in ("(", "|", ")"):
            self.cases[-1] = operator != ")"
            self.first = operator == ")"
        else:
            self.first = True
        if operator == ";;" and self.cases:
            self.cases[-1] = True
        if operator in ("\n", ";"):
            self.skip = "" if self.skip == "do" else self.skip

    def _here_documents(self) -> None:
        for end, tabs in self.heres:
            quoted, end = end[0] in "'\"\\", end.strip("'\"\\")  # noqa: PLW2901
            line = rf"^{tabs}{re.escape(end)}$"
            match = re.compile(line, re.M).search(self.text, self.place)
            stop = match.start() if match else len(self.text)
            if not quoted:
                self._inner(self.text[self.place : stop])
            self.line += self.text.count("\n", self.place, stop)
            self.place = match.end() if match else stop
        self.heres = []

    def _inner(self, text: str) -> None:
        """Take what is substituted in a text that is otherwise data."""
        place, whole, line = self.place, self.text, self.line
        self.text, self.place = text, 0
        while self.place < len(text):
            if text[self.place] in "$`\\":
                self._special()
            else:
                self.line += text[self.place] == "\n"
                self.place += 1
        self.text, self.place, self.line = whole, place, line

    def _word(self) -> None:
        begin, plain = self.place, True
        while self.place < len(self.text):
            letter = self.text[self.place]
            if letter in " \t\n;&|()<>":
                break
            if letter == "'":
                plain = False
                end = self.text.find("'", self.place + 1)
                self._to(len(self.text) if end < 0 else end + 1)
            elif letter == '"':
                plain = False
                self._quoted()
            elif letter in "$`\\":
                plain = False
                self._special()
            else:
                self.place += 1
        self._took(self.text[begin : self.place], plain)

    def _quoted(self) -> None:
        self.place += 1
        while self.place < len(self.text) and self.text[self.place] != '"':
            if self.text[self.place] in "$`\\":
                self._special()
            else:
                self._to(self.place + 1)
        self.place += 1

    def _special(self) -> None:
        """Take a backslash, or a substitution, whose commands count."""
        rest = self.text[self.place : self.place + 3]
        if rest.startswith("$(("):
            self._to(self._closing(self.place + 1))
        elif rest.startswith("$("):
            end = self._closing(self.place + 1)
            self._nested(self.text[self.place + 2 : end - 1])
            self._to(end)
        elif rest.startswith("${"):
            end = self.text.find("}", self.place)
            self._to(len(self.text) if end < 0 else end + 1)
        elif rest.startswith("`"):
            end = self.text.find("`", self.place + 1)
            end = len(self.text) if end < 0 else end
            self._nested(self.text[self.place + 1 : end])
            self._to(end + 1)
        else:
            self._to(self.place + (2 if rest[0] == "\\" else 1))

    def _to(self, place: int) -> None:
        self.line += self.text.count("\n", self.place, place)
        self.place = place

    def _nested(self, text: str) -> None:
        inner = _Shell(text, self.line)
        self.calls += inner.calls
        self.functions |= inner.functions

    def _closing(self, place: int) -> int:
        """Return the place behind the parenthesis that closes the one at a place."""
        depth, quote = 0, ""
        while place < len(self.text):
            letter = self.text[place]
            if letter == "\\" and quote != "'":
                place += 1
            elif quote:
                quote = "" if letter == quote else quote
            elif letter in "'\"":
                quote = letter
            elif letter in "()":
                depth += 1 if letter == "(" else -1
                if not depth:
                    return place + 1
            place += 1
        return place

    def _took(self, word: str, plain: bool) -> None:
        """Judge one word: a file, a pattern, a keyword, an assignment, or a command."""
        if self.redirected:  # or the value of an option
            self.redirected = False
        elif self.skip:
            if word == self.skip:
                if word == "in":
                    self.cases.append(True)
                self.skip, self.first = "", word == "do"
        elif self.cases and self.cases[-1] and word != "esac":
            pass
        elif self.first and not _ASSIGNMENT.match(word):
            self._command(word, plain)

    def _command(self, word: str, plain: bool) -> None:
        if word == "esac":
            if self.cases:
                self.cases.pop()
        elif word in ("for", "case"):
            self.skip = "do" if word == "for" else "in"
        elif word in _OPENS or word in ("fi", "done", "}"):
            self.first = word in _OPENS
            return
        elif self.text.startswith("()", self.place):
            self.functions.add(word)
            self.place += 2
            return
        elif plain and self.runs == "timeout" and _SECONDS.fullmatch(word):
            return
        elif plain and not word.startswith("-"):
            if "/" not in word or _program(word):
                self.calls.append(Call(os.path.basename(word), self.line))
            self.runs = os.path.basename(word)
            self.first = self.runs in _RUNS
            self.skip = "]]" if word == "[[" else ""
            return
        else:
            self.first = plain  # an option of `exec` and the like; or what a variable names
            letters = _VALUED.get(self.runs)
            self.redirected = bool(
                plain and letters and re.fullmatch(f"-[^{letters}]*[{letters}]", word)
            )
            return
        self.first = False
