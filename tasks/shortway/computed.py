"""What make does in a recipe beside its saved command, and what it computes into that.

A saved command has the result for the files of that time. Two such values are computed here again:
the uncompressed size behind a compressed kernel (size_append of scripts/Makefile.lib), and ARM's
size of .bss (KBSS_SZ of arch/arm/boot/compressed/Makefile). If a boot Makefile asks the shell for
anything else, make has to decide.

A recipe may check its target after the saved command, at each run of make: ARM's check_for_bad_syms
does. The short way looks for the same; make has to decide about any other such line.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tasks.kbuild import saved, trace
from tasks.kbuild.saved import Saved, Unfamiliar
from tasks.system.pattern import pattern
from tasks.system.process import run

_OCTAL = r"((?:\\\\[0-7]{3}){4})"
_APPENDED = pattern(rf"printf {_OCTAL}")
_SIZE = pattern(rf"^\s*\{{ cat ([^|;&<>$]+) \|[^;&]*; printf {_OCTAL}; \}} > \S+\s*$")
_BSS = pattern(r"(?<=--defsym _kernel_bss_size=)-?\d+")
_SYMBOL = pattern(rb"^([0-9a-f]+) [ABD] __bss_(start|stop)$", re.MULTILINE)
_ASKS = pattern(r"^(?!\s*#).*\$[({]shell\s.*|^[\w-]+\s*!=.*", re.MULTILINE)
# What boot Makefiles ask the shell: ARM's size of .bss, and a sum of two values of the
# configuration; whole, with single spaces, and without the path of vmlinux.
_KNOWN = {
    r"add_hex = $(shell printf 0x%x $$(( $(1) + $(2) )) )",
    *(
        "KBSS_SZ = $(shell echo $$(($$($(NM) vmlinux | sed -n"
        rf" -e 's/^\([^ ]*\) [{kinds}] __bss_start$$/-0x\1/p'"
        rf" -e 's/^\([^ ]*\) [{kinds}] __bss_stop$$/+0x\1/p') )) )"
        for kinds in ("AB", "ABD")
    ),
}
# scripts/Makefile.lib's definition of the size behind a compressed kernel; older ones have more
# backslashes for the shell.
_SIZE_APPEND = pattern(r"^size_append = .*$", re.MULTILINE)
_KNOWN_SIZE = (
    r"size_append = printf $(shell dec_size=0; for F in $(real-prereqs); do"
    r" fsize=$$($(CONFIG_SHELL) $(srctree)/scripts/file-size.sh $$F);"
    r" dec_size=$$(expr $$dec_size + $$fsize); done;"
    r""" printf "%08x\n" $$dec_size | sed 's/\(..\)/\1 /g' | {"""
    r" read ch0 ch1 ch2 ch3; for ch in $$ch3 $$ch2 $$ch1 $$ch0; do"
    r" printf '%s%03o' '\\' $$((0x$$ch)); done; } )"
)
# Recipe lines that are one variable. The two harmless ones look at the configuration only.
_LINE = pattern(r"^\t@?\$\((\w+)\)\s*$", re.MULTILINE)
_HARMLESS = {"check_for_multiple_zreladdr", "check_for_multiple_loadaddr"}
BAD_SYMBOLS = "check_for_bad_syms"
_LOCAL_BSS = pattern(r"^[0-9a-f]+ [bc] ", re.MULTILINE)
_BOOT = pattern(r"arch/\w+/boot/")
_MAKEFILE = pattern(r"/(?:Makefile|Kbuild)(?:\.\w+)?$|\.mk$")
_LIBRARY = "scripts/Makefile.lib"


def in_loader(target: str) -> bool:
    """Tell whether a target is of a link after vmlinux: only such commands hold computed values."""
    return _BOOT.match(target) is not None


def is_loader(target: str) -> bool:
    """Tell whether a target is a linked loader, with its load."""
    return in_loader(target) and os.path.basename(target) == "vmlinux"


def current(command: Saved, obj: Path) -> Saved:
    """Return a saved command with the values that make would compute now.

    Args:
        command: The command.
        obj: The object folder.

    Raises:
        Unfamiliar: It holds a computed value of another form, or a file is missing.
    """
    if not in_loader(os.path.normpath(command.target)):
        return command
    return msgspec.structs.replace(
        command,
        command=_renewed(command.command, command, obj),
        text=_renewed(command.text, command, obj),
    )


def check(inputs: Iterable[str], tree: str, packs: bool = True) -> bool:
    """Check that recipes and values of the boot Makefiles are known ones.

    Args:
        inputs: A goal's inputs, absolute; its makefiles are among them.
        tree: The source tree, absolute.
        packs: Whether a command of the goal holds the size of what it compresses.

    Returns:
        Whether `bad_symbols` is to be asked of the loader.

    Raises:
        Unfamiliar: A makefile asks the shell for something, or a recipe does something, that is not
            known.
    """
    asked = False
    for name in inputs:
        path = os.path.relpath(name, tree) if _MAKEFILE.search(name) else ""
        if not (_BOOT.match(path) or packs and path == _LIBRARY):
            continue
        try:
            with open(name, encoding="utf-8", errors="replace") as stream:
                text = re.sub(r"\\\n", " ", stream.read())
        except OSError as error:
            raise Unfamiliar(f"{path} can't be read: {error.strerror}") from None
        if path == _LIBRARY:
            if any(_plain(line) != _KNOWN_SIZE for line in _SIZE_APPEND.findall(text)):
                raise Unfamiliar(f"{path} has another size_append")
            continue
        for line in _ASKS.findall(text):
            if _plain(line) not in _KNOWN:
                raise Unfamiliar(f"{path} asks the shell: {line.strip()}")
        for variable in _LINE.findall(text):
            asked = asked or variable == BAD_SYMBOLS
            if variable != BAD_SYMBOLS and variable not in _HARMLESS:
                raise Unfamiliar(f"a recipe of {path} has $({variable})")
    return asked


def holds_size(obj: Path, targets: Iterable[str]) -> bool:
    """Tell whether a command of these targets holds the size of what it compresses.

    Args:
        obj: The object folder.
        targets: The targets, relative to it.
    """
    for target in targets:
        with contextlib.suppress(Unfamiliar):
            if _APPENDED.search(saved.read(trace.record_of(obj, target)).command):
                return True
    return False


def _plain(line: str) -> str:
    """Return a definition with single spaces, few backslashes, and vmlinux without its path."""
    line = re.sub(r"\\{2,}", r"\\\\", " ".join(line.split()))
    return re.sub(r"\$\(NM\) \S*/vmlinux ", "$(NM) vmlinux ", line)


def bad_symbols(obj: Path, loader: str, env: Mapping[str, str]) -> bool:
    """Tell whether ARM's loader has local symbols in .bss, of which make says so and fails.

    Args:
        obj: The object folder.
        loader: The linked loader, relative to it.
        env: The environment of the recipes.
    """
    done = run([env.get("NM", "nm"), loader], cwd=obj, env=env, check=False)
    return bool(done.returncode or _LOCAL_BSS.search(done.output))


def _renewed(text: str, command: Saved, obj: Path) -> str:
    """Return a command's text, for the shell or for the .cmd file, with the present values."""
    if found := _SIZE.match(text):
        size = _appended(obj, found[1].split())
        text = f"{text[: found.start(2)]}{size}{text[found.end(2) :]}"
    elif _APPENDED.search(text):
        raise Unfamiliar(f"the command of {command.target} holds a size in another form")
    return _BSS.sub(lambda _: str(_bss(obj)), text)


def _appended(obj: Path, names: Iterable[str]) -> str:
    r"""Return the size of files as size_append has it: `\\OOO` four times, lowest byte first."""
    try:
        size = sum(os.stat(obj / name).st_size for name in names)
        return "".join(rf"\\{byte:03o}" for byte in size.to_bytes(4, "little"))
    except OSError as error:
        raise Unfamiliar(f"{error.filename} is missing") from None
    except OverflowError:
        raise Unfamiliar("an uncompressed kernel of 4 GiB has no size of four bytes") from None


def _bss(obj: Path) -> int:
    """Return the size of vmlinux's .bss by System.map, which is made with it."""
    try:
        found = {
            name: int(address, 16)
            for address, name in _SYMBOL.findall((obj / "System.map").read_bytes())
        }
        return found[b"stop"] - found[b"start"]
    except (OSError, KeyError):
        raise Unfamiliar("System.map does not tell the size of .bss") from None
