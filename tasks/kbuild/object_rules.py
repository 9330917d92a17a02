"""Steps of Kbuild's rules for an object besides the saved command.

A .cmd file has the compiler's command only. The rule may also check the object, run objtool or
genksyms on it, or add to the .cmd file. Source: rule_cc_o_c and rule_as_o_S in
scripts/Makefile.build (7.3: scripts/Makefile.lib).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tasks.kbuild import symbol_times
from tasks.kbuild.saved import Unfamiliar
from tasks.system.errors import PiggyError

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


def checks(obj: Path, tree: Path) -> dict[str, str]:
    """Return the script that Kbuild runs to check each object: suffix of the source to path.

    Raises:
        Unfamiliar: Kbuild's rules change an object after the compiler in another way.
    """
    # The rules are in the latter since 7.3.
    files = [tree / "scripts" / name for name in ("Makefile.build", "Makefile.lib")]
    text = "\n".join(path.read_text(errors="replace") for path in files if path.exists())
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
