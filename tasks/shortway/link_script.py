"""What is known of scripts/link-vmlinux.sh, by which Kbuild links vmlinux.

Since 6.0 make links vmlinux after vmlinux.o, which modpost looks at; the linker reads the archives
again, unless LTO or IBT have vmlinux.o in their place. So both links can run at once. The script
calls make for init/version-timestamp.o, which takes as long as the linker, and which the short way
knows to be up to date. Source: scripts/link-vmlinux.sh (vmlinux_link), scripts/Makefile.vmlinux.

With KALLSYMS the script links three times: without the table of symbols, to learn its size; with a
table of that size, to learn the addresses; and with the right one. The last link's table has the
right size, too, if no symbol came or went, so the first of the three can be left out. The result is
make's: the size depends on the symbols' names and order alone, and the addresses on the size. If
the size is another one, the script's own third step links once more, as it does for make. Source:
scripts/link-vmlinux.sh (kallsyms_step), scripts/kallsyms.c; the forms of 6.1 and 6.12 are known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tasks.kbuild.saved import Saved
from tasks.kbuild.trace import Said
from tasks.shortway.stale import made_from
from tasks.system.pattern import pattern

WHOLE = "vmlinux.o"
_SCRIPT = "scripts/link-vmlinux.sh"
_USE = pattern(
    r"^\s*if is_enabled CONFIG_LTO_CLANG \|\| is_enabled CONFIG_X86_KERNEL_IBT; then\n"
    r"\s*objs=vmlinux\.o\n",
    re.MULTILINE,
)
_PLAIN = pattern(r";\s+true\s*$")  # no Makefile.postlink
STAMP = "init/version-timestamp.o"
_MAKE = '${MAKE} -f "${srctree}/scripts/Makefile.build" obj=init init/version-timestamp.o\n'
_COMMENT = pattern(r"^[ \t]*#.*\n", re.MULTILINE)
_OTHERWISE = pattern(r"^CONFIG_(?:LTO_CLANG|X86_KERNEL_IBT)=", re.MULTILINE)
# Where the linker adds no stubs, whose symbols would depend on the addresses.
_NO_STUBS = pattern(r"^CONFIG_(?:X86|ARM64|RISCV)=y$", re.MULTILINE)
_KALLSYMS = pattern(r"^CONFIG_KALLSYMS=y$", re.MULTILINE)
_SIZE = '$(${CONFIG_SHELL} "${srctree}/scripts/file-size.sh" ${%s})\n'
_TEST = "\tif [ $size1 -ne $size2 ] || "
# A second link in one run, after modpost's source, finds the last table moved already.
_BEGUN = "\t[ @last = @first ] || ! [ -e @last ] || mv -f @last @first\n\tkallsymso=@first\n"


class _Form(msgspec.Struct, frozen=True):
    """A form of the script.

    Attributes:
        tables: A pattern for the files of the tables.
        first: The file of the first step's.
        known: Parts that are as they are.
        ours: Parts that change, to what takes their place.
        otherwise: A setting with which the first link is needed; "" for none.
    """

    tables: str
    first: str
    known: tuple[str, ...]
    ours: Mapping[str, str]
    otherwise: str = ""


_FORMS = (
    _Form(  # 6.1
        ".tmp_vmlinux.kallsyms[123].o",
        ".tmp_vmlinux.kallsyms1.o",
        (
            f"\tkallsyms_step 2\n\n\tsize1={_SIZE % 'kallsymso_prev'}",
            f"\tsize2={_SIZE % 'kallsymso'}\n{_TEST}",
            "\t\tkallsyms_step 3\n\tfi\n",
        ),
        {
            "\tkallsyms_step 1\n": _BEGUN,
            # A table from other symbols may have the same size, and other parts in it.
            _TEST: _TEST + '[ "$(${NM} -n ${kallsymso_prev})" != "$(${NM} -n ${kallsymso})" ] || ',
        },
    ),
    _Form(  # 6.12
        ".tmp_vmlinux[123].kallsyms.o",
        ".tmp_vmlinux1.kallsyms.o",
        (
            "\tvmlinux_link .tmp_vmlinux2\n\tsysmap_and_kallsyms .tmp_vmlinux2\n",
            f"{_TEST}kallsymso_changed || ",
            "\t\tvmlinux_link .tmp_vmlinux3\n\t\tsysmap_and_kallsyms .tmp_vmlinux3\n\tfi\n",
        ),
        {
            "\ttrue > .tmp_vmlinux.kallsyms0.syms\n"
            "\tkallsyms .tmp_vmlinux.kallsyms0.syms .tmp_vmlinux0.kallsyms\n": _BEGUN,
            "\tvmlinux_link .tmp_vmlinux1\n": "\t:\n",
            "\tsysmap_and_kallsyms .tmp_vmlinux1\n": "",
        },
        "CONFIG_DEBUG_INFO_BTF=y",
    ),
)
_CALLED = pattern(rf"(?:\S*/)?{re.escape(_SCRIPT)}(?= )")
_NAME = '"vmlinux: $0"'
OURS = "piggyback.link-vmlinux.sh"


def unread(obj: Path, tree: Path, said: Said, command: Saved) -> set[str]:
    """Return the targets that vmlinux is made after, but not from.

    The set is empty unless script, configuration and command are known ones. For a kernel with
    modules modpost writes .vmlinux.export.c, too, which is compiled and linked; it does so only if
    an exported symbol came or went, and vmlinux is linked once more then. Source:
    scripts/mod/modpost.c (write_if_changed).

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
    return {WHOLE} | made_from({WHOLE}, said.edges) - {"vmlinux", *after}


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


def with_last_table(obj: Path, tree: Path, command: str) -> str:
    """Return the command that links vmlinux, begun with the last link's table of symbols.

    It runs a copy of the script, which is written to the object folder. The command stays as it is
    unless script, configuration and command are known ones.

    Args:
        obj: The object folder.
        tree: The source tree.
        command: The command that make ran.

    Raises:
        OSError: The copy can't be written.
    """
    try:
        script = _script(tree)
        config = (obj / "include/config/auto.conf").read_text(errors="replace")
    except OSError:
        return command
    called = _CALLED.match(command)
    if not (called and _KALLSYMS.search(config) and _NO_STUBS.search(config)):
        return command
    for form in _FORMS:
        tables = [path for path in obj.glob(form.tables) if path.is_file()]
        known = all(script.count(part) == 1 for part in (*form.known, *form.ours, _NAME))
        if not (tables and known) or (form.otherwise and f"\n{form.otherwise}\n" in config):
            continue
        last = max(tables, key=lambda path: path.stat().st_mtime_ns).name
        for part, ours in form.ours.items():
            text = ours.replace("@last", last).replace("@first", form.first)
            script = script.replace(part, text)
        (obj / OURS).write_text(script.replace(_NAME, f'"vmlinux: {called[0]}"'))
        return f"sh {OURS}{command[called.end() :]}"
    return command


def _script(tree: Path) -> str:
    """Return the lines of the script that are no comments."""
    return "\n" + _COMMENT.sub("", (tree / _SCRIPT).read_text(errors="replace"))
