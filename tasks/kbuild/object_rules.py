"""Steps of Kbuild's rules for an object besides the saved command.

A .cmd file has the compiler's command only. The rule may also check the object, run objtool or
genksyms on it, or add to the .cmd file. Source: rule_cc_o_c and rule_as_o_S in
scripts/Makefile.build (7.3: scripts/Makefile.lib). A folder's makefile may have rules of its own
with more steps; only make knows these.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from tasks.kbuild import makefile_text, makefiles, symbol_times, trace, unrecorded
from tasks.kbuild.records import target_of
from tasks.kbuild.saved import Unfamiliar
from tasks.system import files
from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern

# Configurations in which an object is more than the output of its saved command, or that are
# untested.
_LEFT_TO_MAKE = {"LTO", "LTO_CLANG", "RUST", "DEBUG_INFO_BTF", "DEBUG_INFO_SPLIT", "GCC_PLUGINS"}
# Steps of the rules, each with the symbols under which it changes the object.
_STEPS: dict[str, set[str]] = {
    "cc_o_c": set(),
    "as_o_S": set(),
    "checksrc": set(),
    "checkdoc": set(),
    "gen_objtooldep": set(),
    "warn_shared_object": set(),
    "check_local_export": set(),
    "gen_ksymdeps": {"TRIM_UNUSED_KSYMS"},
    "objtool": {"OBJTOOL", "STACK_VALIDATION"},
    "record_mcount": {"FTRACE_MCOUNT_RECORD"},
    "gen_symversions_c": {"MODVERSIONS"},
    "gen_symversions_S": {"MODVERSIONS"},
    "modversions_c": {"MODVERSIONS"},
    "modversions_S": {"MODVERSIONS"},
    "save_c_flags": {"LTO_CLANG_THIN_DIST"},
}
_CHECK = "check_local_export"
# Lines of a recipe that write a .cmd file, and those beside which it says all about the target.
_RECORDS = pattern(r"if_changed|cmd_and_|rule_")
_MAYBE = pattern(rf"^\t[^\n]*(?:{_RECORDS.pattern})", re.MULTILINE)
_USUAL = pattern(
    r"[@+-]*\$\(call[ \t]+(?:if_changed(?:_dep)?,[ \t]*[\w.-]+"
    r"|if_changed_rule,[ \t]*(?:cc_o_c|as_o_S)|cmd,force_checksrc)\)"
    r"|(?:@|\$\(Q\))(?::|mkdir -p \$\(dir \$@\))|#.*|"
)
# What a rule makes, if that may be objects; or lines with a name, for recipes.
_OBJECTS = pattern(r"\s*(?:\$\([\w-]+\)\s*)+|.*\.o\b.*|define\s+(?!rule_|cmd_).*")
_BETWEEN = pattern(r"\s*(?:#|$|ifn?(?:def|eq)\b|else\b|endif\b)")
_INCLUDED = pattern(r"^[ \t]*[-s]?include[ \t]+([^#\n]+)", re.MULTILINE)
_OF_MAKE = ("$(obj)/", "$(objtree)/")  # what the build itself writes
_KBUILD = {"scripts/Makefile.build", "scripts/Makefile.lib"}  # `checks` looks at their rules


def checks(obj: Path, tree: Path) -> dict[str, str]:
    """Return the script that Kbuild runs to check each object: suffix of the source to path.

    Raises:
        Unfamiliar: Kbuild's rules change an object after the compiler in another way.
    """
    # The rules are in the latter since 7.3.
    paths = [tree / "scripts" / name for name in ("Makefile.build", "Makefile.lib")]
    text = "\n".join(path.read_text(errors="replace") for path in paths if path.exists())
    symbols = enabled(obj)
    if left := symbols & _LEFT_TO_MAKE:
        raise Unfamiliar(f"CONFIG_{min(left)} is set")
    scripts = {}
    for suffix, rule in ((".c", "cc_o_c"), (".S", "as_o_S")):
        body = re.search(rf"^define rule_{rule}\n(.*?)^endef", text, re.MULTILINE | re.DOTALL)
        steps = re.findall(r"\$\(call (?:cmd|cmd_and_fixdep),(\w+)\)", body[1]) if body else []
        if body is None or len(steps) != len(body[1].strip().splitlines()):
            raise Unfamiliar(f"the rule {rule} of this kernel is a new one")
        for step in steps:
            if step not in _STEPS or _STEPS[step] & symbols:
                raise Unfamiliar(f"the rule {rule} has the step {step}")
        if _CHECK in steps:
            scripts[suffix] = os.path.join(os.path.realpath(tree), "scripts", "check-local-export")
    return scripts


def enabled(obj: Path) -> set[str]:
    """Return the symbols that are y, without CONFIG_.

    Raises:
        Unfamiliar: auto.conf can't be read.
    """
    try:
        values = symbol_times.in_force(obj)
    except PiggyError as error:
        raise Unfamiliar(error.message) from error
    return {symbol for symbol, value in values.items() if value == "y"}


def usable(obj: Path, tree: Path) -> str:
    """Return why objects of this configuration can't use the store; "" if they can."""
    try:
        checks(obj, tree)
    except Unfamiliar as reason:
        return reason.message
    return ""


class Own:
    """The rules of folders' makefiles by which an object is more than its saved command makes.

    Args:
        tree: The source tree.
        told: What a make told: each makefile, absolute, to the folders that read it (see
            trace.Said). Others are found by name; a folder without any that includes one whose name
            make computes counts as one with such a rule.
        values: The symbols of the configuration, for `state`.
    """

    def __init__(
        self,
        tree: str | Path,
        told: Mapping[str, Collection[str]],
        values: Mapping[str, str] | None = None,
    ) -> None:
        self._tree = os.path.realpath(tree)
        self._known, self._values = told, values or {}
        self._readers: dict[str, list[str]] | None = None
        self._of_folder: dict[str, str] = {}
        self._texts: dict[str, tuple[bool, str]] = {}

    def of(self, target: str) -> str:
        """Return the makefile that has such a rule, for objects of the target's folder; or "".

        The makefiles of the folders above count, too, but for the top: one may list objects of
        folders below.

        Args:
            target: The object, relative to the object folder.
        """
        folder = os.path.dirname(target)
        if folder not in self._of_folder:
            own = "" if folder[:1] in ("", ".", "/") else self._in(folder)
            self._of_folder[folder] = own or (self.of(folder) if folder else "")
        return self._of_folder[folder]

    def state(self, folder: str, since: int = 0) -> str:
        """Return the state of the rules that count for a folder's objects; "" if none is its own.

        No command that is recorded has what these do, and make does not look at it. They may use
        symbols and other files. Where make computes the name of a makefile, one may have come.

        Args:
            folder: The folder, relative to the tree.
            since: As in `states`.
        """
        if folder[:1] in ("", ".", "/"):  # the top: its makefiles are everybody's
            return ""
        digest, place, paths, computed = hashlib.sha256(), folder, set[str](), set[str]()
        while place:
            found, computing = self._read_for(place)
            paths.update(found)
            computed.update(computing)
            place = os.path.dirname(place)
        if not computed and not self.of(f"{folder}/"):
            return ""
        named = unrecorded.searched(self._tree, sorted(paths))
        for path in sorted(paths | named):
            if since and files.touched(path.removesuffix("/*"), since, missing=False):
                return "?"
            text = self._content(path)
            names = sorted(makefiles.symbols_in(path)) if path in paths else []
            values = [(name, self._values.get(name, "n")) for name in names]
            digest.update(repr((path, text, values)).encode(errors="replace"))
        return digest.hexdigest()[:16]

    def _in(self, folder: str) -> str:
        paths, computing = self._read_for(folder)
        own = [path for path in paths if self._text(path)[0]]
        return next(iter(own or (() if folder in self._told() else computing)), "")

    def _told(self) -> dict[str, list[str]]:
        """Return each folder to the makefiles that make read for it."""
        if self._readers is None:
            self._readers = {}
            for path, places in self._known.items():
                if not path.startswith(f"{self._tree}/scripts/"):
                    for place in places:
                        self._readers.setdefault(place, []).append(path)
        return self._readers

    def _read_for(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the makefiles that a make for a folder reads, as far as they can be told.

        Returns:
            The makefiles, and those of them that include one whose name only make can tell.
        """
        own, found, computing = f"{self._tree}/{folder}", list[str](), list[str]()
        waiting = [f"{own}/Kbuild", f"{own}/Makefile", *self._told().get(folder, ())]
        seen = {f"{self._tree}/{name}" for name in _KBUILD}
        while waiting:
            path = waiting.pop()
            if path in seen:
                continue
            seen.add(path)
            found.append(path)
            text = makefile_text.expanded(self._text(path)[1], self._tree, own)
            for word in makefile_text.WILDCARD.sub(r" \1 ", text).split():
                if "$" not in word:
                    name = os.path.normpath(os.path.join(self._tree, word))
                    waiting += sorted(glob.glob(name)) if "*" in name else [name]
                elif not word.startswith(_OF_MAKE):
                    computing.append(path)
        return found, computing

    def _text(self, path: str) -> tuple[bool, str]:
        """Return whether a makefile has such a rule, and the names of those that it includes."""
        if path not in self._texts:
            text = self._content(path)
            included = " ".join(_INCLUDED.findall(text)) if "include" in text else ""
            self._texts[path] = goes_on(text), included
        return self._texts[path]

    @staticmethod
    def _content(path: str) -> str:
        if not path.endswith("/*"):
            return makefile_text.content(path)
        with contextlib.suppress(OSError):
            return "\0".join(sorted(os.listdir(path[:-2])))
        return ""


def goes_on(text: str) -> bool:
    """Tell whether a makefile has a rule for objects with more steps than the saved command.

    Args:
        text: Its content.
    """
    if not _MAYBE.search(text) and not re.search(r";[^;\n]*if_changed", text):
        return False
    head, recipe = "", list[str]()
    for line in [*text.replace("\\\n", " ").split("\n"), "end:"]:
        if line.startswith("\t"):
            recipe.append(line.strip())
        elif not _BETWEEN.match(line):
            more = any(map(_RECORDS.search, recipe)) and not all(map(_USUAL.fullmatch, recipe))
            if more and _OBJECTS.fullmatch(head.rpartition(":")[0] or head):
                return True
            head, _, first = line.partition(";")
            recipe = [first.strip()]
    return False


def states(obj: Path, tree: str, records: Iterable[str], since: int = 0) -> dict[str, str]:
    """Return each folder with rules of its own for its objects, to their state.

    Args:
        obj: The object folder.
        tree: The source tree.
        records: The .cmd files.
        since: When the objects began to be made, ns since 1970: what changed since then counts as
            unknown; 0 for never.
    """
    own = Own(tree, trace.readers(trace.read(obj)), symbol_times.values_of(obj))
    folders = {os.path.relpath(one, obj) for one in {os.path.dirname(path) for path in records}}
    found = {folder: own.state(folder, since) for folder in sorted(folders)}
    return {folder: state for folder, state in found.items() if state}


def remove(
    obj: Path, tree: str, records: Collection[str], before: Mapping[str, str]
) -> dict[str, str]:
    """Remove the objects of folders whose own rules changed, and return the states of all such.

    Args:
        obj: The object folder.
        tree: The source tree.
        records: The .cmd files.
        before: The states that the objects were made with.
    """
    found = states(obj, tree, records)
    for record in records:
        folder = os.path.relpath(os.path.dirname(record), obj)
        if record.endswith(".o.cmd") and found.get(folder) != before.get(folder):
            files.remove(target_of(record))
    return found
