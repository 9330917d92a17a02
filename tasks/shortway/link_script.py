"""What is known of scripts/link-vmlinux.sh, by which Kbuild links vmlinux.

Since 6.0 make links vmlinux after vmlinux.o, which modpost looks at; the linker reads the archives
again, unless LTO or IBT have vmlinux.o in their place. So both links can run at once. The script
calls make for init/version-timestamp.o, which takes as long as the linker, and which the short way
knows to be up to date. Source: scripts/link-vmlinux.sh (vmlinux_link), scripts/Makefile.vmlinux.
"""

from __future__ import annotations

import re
from pathlib import Path

from tasks.kbuild.saved import Saved
from tasks.kbuild.trace import Said
from tasks.shortway.stale import made_from

WHOLE = "vmlinux.o"
_SCRIPT = "scripts/link-vmlinux.sh"
_USE = re.compile(
    r"^\s*if is_enabled CONFIG_LTO_CLANG \|\| is_enabled CONFIG_X86_KERNEL_IBT; then\n"
    r"\s*objs=vmlinux\.o\n",
    re.MULTILINE,
)
_PLAIN = re.compile(r";\s+true\s*$")  # no Makefile.postlink
STAMP = "init/version-timestamp.o"
_MAKE = '${MAKE} -f "${srctree}/scripts/Makefile.build" obj=init init/version-timestamp.o\n'
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
# modpost makes a source for the link of a kernel with modules
_OTHERWISE = re.compile(r"^CONFIG_(?:LTO_CLANG|X86_KERNEL_IBT|MODULES)=", re.MULTILINE)


def unread(obj: Path, tree: Path, said: Said, command: Saved) -> set[str]:
    """Return the targets that vmlinux is made after, but not from.

    The set is empty unless script, configuration and command are known ones.

    Args:
        obj: The object folder.
        tree: The source tree.
        said: The trace of vmlinux.
        command: The saved command of vmlinux.
    """
    after = said.edges.get("vmlinux", ())
    if WHOLE not in after or not _PLAIN.search(command.command):
        return set()
    try:
        script = _script(tree)
        config = (obj / "include/config/auto.conf").read_text(errors="replace")
    except OSError:
        return set()
    if _OTHERWISE.search(config):
        return set()
    uses = re.findall(r"\bvmlinux\.o\b(?!\.)", script)
    if len(uses) != 1 or not _USE.search(script):
        return set()
    return {WHOLE, *made_from({WHOLE}, said.edges)} - {"vmlinux"}


def calls_make_for_nothing(tree: Path, said: Said) -> bool:
    """Tell whether the script calls make for nothing but the object with the version.

    That is up to date if neither a symbol nor a makefile has changed and its own command has run,
    where it was stale: the version comes from the configuration and the pinned environment.

    Args:
        tree: The source tree.
        said: The trace of vmlinux.
    """
    try:
        script = _script(tree)
    except OSError:
        return False
    return STAMP in said.edges and script.count("MAKE") == 1 and f"\n{_MAKE}" in script


def _script(tree: Path) -> str:
    """Return the script without its comments."""
    return _COMMENT.sub("", (tree / _SCRIPT).read_text(errors="replace"))
