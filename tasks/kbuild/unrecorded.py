"""Inputs of a build that Kbuild does not record: makefiles, tables, scripts, Kconfig's own tools.

They were found by a trace of the files that a whole build reads. A needless input costs a run of
make that finds nothing to do; a missing one gives a wrong result.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tasks.kbuild import makefile_text
from tasks.kbuild.makefile_text import content
from tasks.kbuild.manifest import KCONFIG
from tasks.system.pattern import pattern

# Files in a folder with objects that are recorded, belong to Kconfig, or are for people.
_ELSEWHERE = pattern(
    r".*\.(c|h|S|rs|dtsi?|dtso|rst|orig|rej)|Kconfig.*|Config\..*|\..*|.*[~#]|README.*|LICENSE.*"
)
# As mksysmap, which link-vmlinux.sh calls. (Those that a saved command names the ledger knows.)
_SCRIPT = pattern(r"/scripts/(?:[\w-]+/)*(?!Makefile|Kbuild|Kconfig)[\w-]+(?:\.(?:sh|pl|py|awk))?$")
_SOURCES = (".c", ".h", ".S", ".rs", ".o", ".dts", ".dtsi", ".dtso")  # records have these
_INCLUDED = pattern(r"^\s*-?include\s+\$\(src(?:tree)?\)/(\S+)", re.MULTILINE)
# What a makefile takes if it is there: by -include, by $(wildcard ...).
_OPTIONAL = pattern(
    r"^[ \t]*[-s]include\s+([^#\n]+)|\$\(wildcard\s+((?:[^()]|\([^()]*\))+)\)", re.MULTILINE
)
# Scripts that a Kconfig file calls, what else it names, and scripts that another script calls.
_ASKED = pattern(r"scripts/([\w./-]+)")
_NAMED = pattern(r"\$\(srctree\)/(?>([\w./+@~,-]+))(?![$*?\[])")
_CALLED = pattern(r"(?:scripts/)?([\w-][\w.-]*\.(?:sh|pl|py))")
# Lists of headers that Kbuild generates, and of system calls (asm-headers in the top Makefile,
# archheaders).
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


# Symbols with which a kernel has further inputs: git's state, random keys, files outside of the
# tree.
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
# Those of them whose rules look, at each run of make, at what no makefile names: git's state, and
# all headers of the tree, those that nothing includes as well (kernel/gen_kheaders.sh).
_LOOKED_AT = {"LOCALVERSION_AUTO": "git's name of the kernel", "IKHEADERS": "all headers"}
# What a tree has whose version scripts/setlocalversion tells; older ones know more than git.
_VERSIONED = (".git", ".hg", ".scmversion")


def looked_at(config: bytes, tree: Path) -> list[str]:
    """Return what only make can tell whether it changed.

    Args:
        config: The text of the .config.
        tree: The tree.
    """
    return [
        f"{what} (CONFIG_{symbol})"
        for symbol, what in _LOOKED_AT.items()
        if re.search(rf"^CONFIG_{symbol}=[ym]\s*$".encode(), config, re.MULTILINE)
        and (symbol != "LOCALVERSION_AUTO" or versioned(tree))
    ]


def versioned(tree: Path) -> bool:
    """Tell whether a tree may have a version of git's or another such system's.

    Git's counts in the top folder of a checkout alone (git rev-parse --show-cdup in
    scripts/setlocalversion), Subversion's in all folders of one.
    """
    top = Path(os.path.realpath(tree))
    return any(os.path.lexists(top / name) for name in _VERSIONED) or any(
        os.path.lexists(folder / ".svn") for folder in (top, *top.parents)
    )


def unrecorded(values: Mapping[str, str]) -> bool:
    """Tell whether a kernel with this configuration has unrecorded inputs.

    An outdated result can't then be recognised.
    """
    return any(values.get(symbol, "n") not in ("n", "", '""') for symbol in _UNRECORDED)


def version_files(*tops: Path) -> list[Path]:
    """Return the localversion* files, which add to the kernel's release.

    Source: scripts/setlocalversion.

    Args:
        tops: The tree and the object folder.
    """
    return [
        path
        for top in tops
        for path in sorted(top.glob("localversion*"))
        if not path.name.endswith("~")
    ]


def beside(tree: str, folders: Iterable[str]) -> set[str]:
    """Return the makefiles in folders of a tree, and the files beside them that rules read.

    These are tables and small programs, such as kernel/time/timeconst.bc, but no sources and no
    Kconfig files. Makefiles that are included are returned, too.

    Args:
        tree: The tree's real path.
        folders: The folders with targets, relative to the tree.
    """
    paths: set[str] = set()
    for folder in folders:
        try:
            with os.scandir(os.path.join(tree, folder)) as entries:
                paths.update(
                    entry.path
                    for entry in entries
                    if entry.is_file() and not _ELSEWHERE.fullmatch(entry.name)
                )
        except OSError:
            continue  # a folder that only the object folder has
    for path in sorted(paths):
        if os.path.basename(path).startswith(("Makefile", "Kbuild")):
            paths.update(os.path.join(tree, name) for name in _INCLUDED.findall(content(path)))
    return paths


def searched(tree: str, makefiles: Iterable[str]) -> set[str]:
    """Return the files that makefiles name, and the folders in which they look, each with "/*".

    A file may be read by $(shell cat ...). A new one in a folder may be a new source, as for
    $(wildcard $(src)/*.c) or $(shell ls $(src)), or be included. One that is no source may be a
    prerequisite, as $(wildcard $(srctree)/embed/*) of busybox's Makefile. Names with other
    variables are passed over.

    Args:
        tree: The tree's real path.
        makefiles: The makefiles, absolute.
    """
    name = re.compile(re.escape(tree) + r"/[\w./+@%~,-]*\w")
    found, named = set[str](), set[str]()
    for makefile in makefiles:
        text = content(makefile)
        if "$(src" not in text:
            continue
        found |= makefile_text.listed(text, tree, makefile)
        text = makefile_text.expanded(text, tree, os.path.dirname(makefile)).replace("\\\n", " ")
        named.update(name.findall(text))
        for words in _OPTIONAL.findall(text):
            for word in " ".join(words).split():
                folder = os.path.dirname(word)
                pattern = re.search(r"[*?[]", word) is not None
                if (
                    folder.startswith(tree + "/")
                    and not re.search(r"[*?$]", folder)
                    and (pattern or not ("$" in word or os.path.exists(word)))
                ):
                    found.add(f"{os.path.normpath(folder)}/*")
                    if pattern:
                        named.update(x for x in glob.glob(word) if not x.endswith(_SOURCES))
    found = {folder for folder in found if os.path.isdir(folder[:-2])}
    return found.union(filter(os.path.isfile, map(os.path.normpath, named)))


def is_script(path: str) -> bool:
    """Tell whether a file of the kernel tree is a script: make may not see that it changed.

    A script is a prerequisite only where a makefile says so.

    Args:
        path: The file.
    """
    return bool(_SCRIPT.search(path))


def headers(tree: str, archs: Iterable[str]) -> set[str]:
    """Return the unrecorded inputs of generated headers.

    Args:
        tree: The tree's real path.
        archs: Folders of arch/.
    """
    top = Path(tree)
    inputs = {top / name for name in _HEADERS}
    for arch in archs:
        inputs.update(
            path for pattern in _ARCH_HEADERS for path in (top / "arch" / arch).glob(pattern)
        )
    return {str(path) for path in inputs if path.is_file()}


def generated(obj: Path, digest: Callable[[Path], str]) -> str:
    """Return the headers generated for all folders, each with its digest, as lines of text.

    Those that Kconfig writes are left out: the configuration is an input of its own.

    Args:
        obj: The object folder.
        digest: Returns a file's digest.
    """
    tops = [obj / "include" / "generated", *obj.glob("arch/*/include/generated")]
    names = sorted(str(path.relative_to(obj)) for top in tops for path in top.rglob("*.h"))
    return "".join(f"{digest(obj / name)} {name}\n" for name in names if name not in KCONFIG)


def kconfig(source: Path, sources: Iterable[str], base: str) -> list[str]:
    """Return the inputs of a configuration besides the Kconfig files.

    These are Kconfig itself, the makefiles that call it, the scripts that Kconfig files call (and
    those that these call), other files that they name, as $(shell,cat $(srctree)/x), and the tree's
    own base configuration. For a file that is not there yet it is the folder, with "/*". Source:
    scripts/kconfig/Makefile.

    Args:
        source: The tree.
        sources: The Kconfig files, absolute.
        base: The base configuration.
    """
    tree = Path(os.path.realpath(source))
    archs = {
        arch[1]
        for path in sources
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
    inputs = {path for pattern in patterns for path in tree.glob(pattern)}
    waiting, named = set[str](), set[str]()
    for file in sources:
        text = content(file)
        waiting.update(_ASKED.findall(text))
        named.update(os.path.normpath(tree / name.rstrip(".,")) for name in _NAMED.findall(text))
    while waiting:
        path = tree / "scripts" / waiting.pop()
        if path not in inputs and path.is_file():
            inputs.add(path)
            waiting.update(_CALLED.findall(content(str(path))))
    found = {str(path) for path in inputs if path.is_file() and not path.name.startswith(".")}
    for name in named:
        if os.path.isfile(name):
            found.add(name)
        elif name.startswith(f"{tree}/"):
            found |= makefile_text.awaited(name)
    return sorted(found)
