"""What steers a build by Kbuild and stands in none of its records.

That is makefiles, tables and scripts, and Kconfig's own tools.

Found by watching which files of a tree a whole build reads. What is recorded needlessly costs a run
of make that finds nothing to do; what is not recorded gives a wrong result.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

# In a folder with objects: what has a record, or is read for the configuration, or by people.
_ELSEWHERE = re.compile(
    r".*\.(c|h|S|rs|dtsi?|dtso|rst|orig|rej)|Kconfig.*|Config\..*|\..*|.*[~#]|README.*|LICENSE.*"
)
_INCLUDED = re.compile(r"^\s*-?include\s+\$\(src(?:tree)?\)/(\S+)", re.MULTILINE)
_ASKED = re.compile(r"scripts/([\w./-]+)")  # in a Kconfig file, and by another script:
_CALLED = re.compile(r"(?:scripts/)?([\w-][\w.-]*\.(?:sh|pl|py))")
# Lists of headers that Kbuild makes by itself, and of system calls (asm-headers in the top
# Makefile, archheaders).
_HEADERS = ("include/asm-generic/Kbuild", "include/uapi/asm-generic/Kbuild")
_ARCH_HEADERS = ("include/asm/Kbuild", "include/uapi/asm/Kbuild", "*/syscalls/*")
_KCONFIG = (
    "Makefile",
    "scripts/Makefile*",
    "scripts/Kbuild.include",
    "scripts/subarch.include",
    "scripts/basic/*",
    "scripts/kconfig/*",
    "scripts/Kconfig.include",
)


# What a kernel with one of these is made from besides: git's state, keys made at random, files from
# outside of the tree.
_UNRECORDED = (
    "LOCALVERSION_AUTO",
    "MODULE_SIG",
    "SYSTEM_TRUSTED_KEYS",
    "SYSTEM_BLACKLIST_HASH_LIST",
    "EXTRA_FIRMWARE",
    "INITRAMFS_SOURCE",
    "BOOT_CONFIG_EMBED_FILE",
    "IKHEADERS",
    "DEBUG_INFO_BTF",
    "RANDSTRUCT",
    "GCC_PLUGIN_RANDSTRUCT",
    "IMA_APPRAISE_MODSIG",
)


def unrecorded(values: Mapping[str, str]) -> bool:
    """Tell whether a kernel with this configuration is made from something unrecorded.

    An earlier result can't then be told from a right one.
    """
    return any(values.get(symbol, "n") not in ("n", "", '""') for symbol in _UNRECORDED)


def version_files(*tops: Path) -> list[Path]:
    """Return the files by which a kernel gets a name of its own.

    Args:
        tops: The tree, the object folder (setlocalversion).
    """
    return [
        path
        for top in tops
        for path in sorted(top.glob("localversion*"))
        if not path.name.endswith("~")
    ]


def beside(tree: str, folders: Iterable[str]) -> set[str]:
    """Return the makefiles in folders of a tree, and what lies beside them for rules to read.

    That is neither source nor Kconfig file, but tables and small programs, such as
    kernel/time/timeconst.bc. The makefiles that those include are returned, too.

    Args:
        tree: Its real path.
        folders: Relative to it, those in which something was made.
    """
    found: set[str] = set()
    for folder in folders:
        try:
            with os.scandir(os.path.join(tree, folder)) as entries:
                found.update(
                    entry.path
                    for entry in entries
                    if entry.is_file() and not _ELSEWHERE.fullmatch(entry.name)
                )
        except OSError:
            continue  # a folder that is in the object folder alone
    for path in sorted(found):
        if os.path.basename(path).startswith(("Makefile", "Kbuild")):
            found.update(os.path.join(tree, name) for name in _INCLUDED.findall(_text(path)))
    return found


def headers(tree: str, archs: Iterable[str]) -> set[str]:
    """Return what headers are made from without a record, for these folders of arch/."""
    top = Path(tree)
    found = {top / name for name in _HEADERS}
    for arch in archs:
        found.update(
            path for pattern in _ARCH_HEADERS for path in (top / "arch" / arch).glob(pattern)
        )
    return {str(path) for path in found if path.is_file()}


def kconfig(source: Path, files: Iterable[str], base: str) -> list[str]:
    """Return what a configuration is made by, besides the Kconfig files.

    That is Kconfig itself, the makefiles that call it, the scripts that Kconfig files ask (and
    those that these call), and the tree's own configuration `base`. Source:
    scripts/kconfig/Makefile.

    Args:
        source: The tree.
        base: The configuration to start from.
        files: The Kconfig files, absolute.
    """
    tree = Path(os.path.realpath(source))
    archs = {
        arch[1]
        for path in files
        if (arch := re.fullmatch(rf"{re.escape(str(tree))}/arch/(\w+)/Kconfig", path))
    }
    patterns = [
        *_KCONFIG,
        *(
            f"arch/{arch}/{name}"
            for arch in archs
            for name in ("Makefile*", f"configs/{base}", "configs/*.config")
        ),
    ]
    found = {path for pattern in patterns for path in tree.glob(pattern)}
    waiting = {name for path in files for name in _ASKED.findall(_text(path))}
    while waiting:
        path = tree / "scripts" / waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            waiting.update(_CALLED.findall(_text(str(path))))
    return sorted(str(path) for path in found if path.is_file() and not path.name.startswith("."))


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
