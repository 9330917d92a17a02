"""A link made once more, elsewhere, to have the linker's map of it.

Kbuild writes a map of vmlinux only with CONFIG_VMLINUX_MAP, and then as a part of the build. What
it would hold is asked of the linker by running Kbuild's saved command (.X.cmd) in a temporary
folder that stands for the object folder: its folders are links to the real ones, its own files are
copies. Nothing in the object folder is written.

vmlinux is linked by scripts/link-vmlinux.sh, which is given another LD: that adds -Map to the last
link and leaves out those before it, whose files (kallsyms) are there already. The environment is
that of make's last trace (kbuild/trace.py).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tasks.kbuild import saved, trace
from tasks.kbuild.saved import Unfamiliar
from tasks.system.pattern import pattern
from tasks.system.process import run
from tasks.tuning import elf, linkmap
from tasks.tuning.elf import Elf
from tasks.tuning.linkmap import Input

# Of the files at the top of the object folder these are no inputs of a link.
_OUTPUTS = pattern(
    r"piggyback\..*|vmlinux(\.unstripped|\.map)?|System\.map|\.tmp_System\.map|.*\.(S|syms|cmd|d)"
)
_WRAPPER = """\
#!/bin/sh
out= before=
for word; do
    [ "$before" = -o ] && out=$word
    before=$word
done
case $out in
vmlinux | vmlinux.unstripped) exec $PIGGYBACK_LD "$@" -Map="$PIGGYBACK_MAP" ;;
esac
[ -n "$out" ] && [ -e "$out" ] && exit 0
exec $PIGGYBACK_LD "$@"
"""


def vmlinux(obj: Path, place: Path) -> tuple[Elf, list[Input]]:
    """Link vmlinux once more, from the objects as they are.

    Args:
        obj: The object folder.
        place: A folder of ours on which the temporary one is made.

    Returns:
        The file that was linked, and the parts of it.

    Raises:
        Unfamiliar: It can't be linked by the saved command.
    """
    said = trace.read(obj).goals.get("vmlinux")
    target = "vmlinux.unstripped" if (obj / ".vmlinux.unstripped.cmd").exists() else "vmlinux"
    command = saved.read(trace.record_of(obj, target)).command
    if said is None or not said.env.get("LD"):
        raise Unfamiliar("make has not told yet in which environment vmlinux is linked")
    linker = said.env["LD"]
    with tempfile.TemporaryDirectory(prefix=".size.", dir=place.absolute()) as name:
        _mirror(obj, Path(name))
        mirror = Path(name)
        wrapper = mirror / "piggyback.ld"
        wrapper.write_text(_WRAPPER)
        wrapper.chmod(0o755)
        text, count = re.subn(
            rf"(?<![\w./-]){re.escape(linker)}(?![\w./-])", str(wrapper), command, count=1
        )
        if not count:
            raise Unfamiliar("the command that links vmlinux does not name the linker")
        quiet = {"MAKE": "true", **({"CC": "true"} if _linked_before(mirror) else {})}
        env = {**said.env, "LD": str(wrapper), "PIGGYBACK_LD": linker, **quiet}
        return _linked(mirror, text, env, target)


def other(obj: Path, target: str, place: Path) -> tuple[Elf, list[Input]]:
    """Link a file once more whose saved command is a call of the linker, such as the loader's.

    Args:
        obj: The object folder.
        target: The file, relative to it.
        place: As for `vmlinux`.

    Returns:
        As for `vmlinux`.

    Raises:
        Unfamiliar: The command is another.
    """
    command = saved.read(trace.record_of(obj, target)).command
    words = command.split(";")[0].split()
    if re.search(r"[|&`$<>]", command.split(";")[0]) or words.count("-o") != 1:
        raise Unfamiliar(f"the command that makes {target} is no call of the linker alone")
    env = next((said.env for said in trace.read(obj).goals.values() if said.env), {})
    at = words.index("-o")
    return _by_linker([*words[:at], *words[at + 2 :]], env, obj, target, place)


def zboot(obj: Path, target: str, image: Path, place: Path) -> tuple[Elf, list[Input]]:
    """Link the MIPS vmlinuz once more, of which Kbuild keeps no command.

    Its objects are linked in the order in which their makefile names them, to the address that the
    image has. Source: cmd_zld in arch/mips/boot/compressed/Makefile.

    Args:
        obj: The object folder.
        target: The file, relative to it.
        image: The file, as it was made.
        place: As for `vmlinux`.

    Returns:
        As for `vmlinux`.

    Raises:
        Unfamiliar: It is another link.
    """
    said = next((one for one in trace.read(obj).goals.values() if target in one.edges), None)
    names = said.edges[target] if said else []
    scripts = [name for name in names if name.endswith("/arch/mips/boot/compressed/ld.script")]
    text = next((one for one in elf.read(image).sections if one.name == ".text"), None)
    if said is None or text is None or len(scripts) != 1:
        raise Unfamiliar(f"{target} has no saved command, and is no vmlinuz of MIPS")
    makefile = Path(scripts[0]).with_name("Makefile").read_text(errors="replace")
    objects = [name for name in names if name.endswith(".o")]
    objects.sort(key=lambda name: makefile.find(f"/{os.path.basename(name)}"))
    words = [said.env.get("LD", "ld"), *said.env.get("KBUILD_LDFLAGS", "").split()]
    words += [f"-Ttext={text.address:#x}", "-T", scripts[0], *objects]
    return _by_linker(words, said.env, obj, target, place)


def _by_linker(
    words: list[str], env: Mapping[str, str], obj: Path, target: str, place: Path
) -> tuple[Elf, list[Input]]:
    """Run a call of the linker, without its output, in an object folder; that goes elsewhere."""
    with tempfile.TemporaryDirectory(prefix=".size.", dir=place) as name:
        output, plan = Path(name, "linked").absolute(), Path(name, "map").absolute()
        run([*words, "-o", str(output), f"-Map={plan}"], cwd=obj, env=env, check=False)
        return _result(output, plan, target)


def _mirror(obj: Path, folder: Path) -> None:
    """Fill the temporary folder that stands for an object folder.

    Raises:
        Unfamiliar: Another run is at work in the object folder.
    """
    try:
        for entry in os.scandir(obj.absolute()):
            path = folder / entry.name
            if entry.is_symlink() or entry.is_dir():
                path.symlink_to(entry.path)
            elif entry.is_file() and not _OUTPUTS.fullmatch(entry.name):
                shutil.copy2(entry.path, path)
    except FileNotFoundError as error:
        raise Unfamiliar(f"{error.filename} has just been removed") from None


def _linked_before(mirror: Path) -> bool:
    """Tell whether the objects of kallsyms are there, so that they need no compiler."""
    return any(mirror.glob(".tmp_*.o"))


def _linked(
    mirror: Path, command: str, env: Mapping[str, str], target: str
) -> tuple[Elf, list[Input]]:
    plan = mirror / "piggyback.map"
    run(
        ["sh", "-c", f"set -e\n{command}"],
        cwd=mirror,
        env={**env, "PIGGYBACK_MAP": str(plan)},
        check=False,
    )
    return _result(mirror / target, plan, target)


def _result(output: Path, plan: Path, target: str) -> tuple[Elf, list[Input]]:
    if not (output.is_file() and plan.is_file()):
        raise Unfamiliar(f"the command that links {shlex.quote(target)} failed")
    return elf.read(output), linkmap.parse(plan.read_text(errors="replace"))
