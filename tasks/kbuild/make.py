"""Running of make with a pinned environment, and removal of incomplete files of a killed make."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tasks.system import files, process, terminal
from tasks.system.jobserver import Budget
from tasks.system.pattern import pattern
from tasks.system.process import CommandError

LINK_RULES = Path(__file__).with_name("link.mk")
_WORK = pattern(r"\s{2}(?:CC|AS|HOSTCC|AR|LD|LDS|CC \[M\]|VDSO2C|CHK|GEN|UPD|OBJCOPY)\s")
# ld's words
_UNREADABLE = (
    "file (?:format )?not recognized|file truncated|file too short|in archive is not an object"
)
# Files without a record that are not a rule's alone: at the top (System.map comes with vmlinux),
# hidden ones, Kconfig's, ours, modpost's, which it does not write again, and those of tools/.
_NOT_MADE = pattern(
    r"^/[^/]*$|/\.|^/tools/|^/include/config/|/generated/(?:autoconf\.h|rustc_cfg)$|/piggyback\.|\.mod\.c$"
)
# The end of a list of dependencies, and what gen_objtooldep of scripts/Makefile.lib writes there.
_LIST_ENDS = pattern(rb"\):\s*(?:\S+: \$\(wildcard \S+\)\s*)?\Z")
_WORD = pattern(r"[\w./+@%~,-]+")
_TOGETHER_NS = 20_000_000  # what one program writes
# Files of the links of the image chain, not of vmlinux; startup/ is in both (7.3).
LOADER = pattern(r"/arch/\w+/boot/(?!startup/)")
# A marker in the object folder while make runs; a killed make leaves it behind, and one that failed
# leaves it with a word in it.
RUNNING = "piggyback.running"


def pins(epoch: int) -> dict[str, str]:
    """Return the environment variables for a reproducible build.

    Source: Documentation/kbuild/reproducible-builds.rst. LOCALVERSION, set but empty, keeps
    scripts/setlocalversion from adding a "+" in a git tree.

    Args:
        epoch: The build's time stamp, seconds since 1970.
    """
    import time

    return {
        "KBUILD_BUILD_TIMESTAMP": time.strftime("%a %b %e %H:%M:%S UTC %Y", time.gmtime(epoch)),
        "KBUILD_BUILD_USER": "piggyback",
        "KBUILD_BUILD_HOST": "piggyback",
        "KBUILD_BUILD_VERSION": "1",
        "LOCALVERSION": "",
        "SOURCE_DATE_EPOCH": str(epoch),
    }


def run(
    source: Path,
    obj: Path,
    goals: Sequence[str],
    *,
    jobs: Budget,
    variables: Mapping[str, str],
    env: Mapping[str, str],
    log: Path | None,
    label: str = "",
    expected: int = 0,
    stdin: str | None = None,
) -> int:
    """Run `make O=obj goals` in a tree.

    Args:
        source: The tree.
        obj: The object folder.
        goals: The goals.
        jobs: The jobserver; make starts when a token is free.
        variables: Make variables for the command line.
        env: Environment variables.
        log: A file for make's output.
        label: The progress bar's label; "" for no bar.
        expected: The expected number of commands; 0 if that is not known.
        stdin: A text for standard input.

    Returns:
        How many commands make printed; 0 without a progress bar.

    Raises:
        CommandError: Make failed; the compiler's errors come first in the message.
    """
    obj.mkdir(parents=True, exist_ok=True)
    repair(obj)
    marker = obj / RUNNING
    marker.touch()
    argv = [
        "make",
        "-C",
        os.fspath(source),
        f"O={obj.absolute()}",
        "--no-print-directory",
        *(f"{name}={value}" for name, value in variables.items()),
        *goals,
    ]
    count = 0

    def seen(line: str) -> None:
        nonlocal count
        if progress is not None and _WORK.match(line):
            count += 1
            progress.step()

    with (
        jobs.token(),
        terminal.bar(label, expected, "commands")
        if label
        else contextlib.nullcontext() as progress,
    ):
        watch, env = seen if label else None, {**env, **jobs.environment()}
        dropped: set[Path] = set()
        while True:
            try:
                process.run(argv, env=env, log=log, stdin=stdin, on_line=watch)
                break
            except CommandError as error:
                damaged = _drop_damaged(obj, error.done.output)  # ld names one at a time
                if damaged <= dropped:
                    marker.write_text("failed")  # make has removed what was half done
                    raise first_errors(error) from None
                dropped |= damaged
    marker.unlink()
    return count


def _drop_damaged(obj: Path, output: str) -> set[Path]:
    """Remove the object files that the linker could not read, and return them.

    Another program truncated or overwrote them. Make considers them up to date by their time, and
    would fail for ever.
    """
    top = obj.resolve()
    names = re.findall(
        rf"([^\s:]+\.[oa])(?:\(\S+\))?: (?:{_UNREADABLE})|member (\S+\.o) in archive is not", output
    )
    paths = {top / name for pair in names for name in pair if name}
    inside = {path for path in paths if path.is_file() and path.resolve().is_relative_to(top)}
    for path in inside:
        path.unlink()
    return inside


def first_errors(error: CommandError) -> CommandError:
    """Add the compiler's and linker's errors to the message of a failed make.

    With -j they may be far from the end of the output.
    """
    output = [line.strip() for line in error.done.output.splitlines()]
    lines = [
        line for line in output if re.search(rf"\berror:|undefined reference|{_UNREADABLE}", line)
    ] or [line for line in output if "***" in line and "Waiting for" not in line]
    if lines:
        error.message += ":\n" + "\n".join("    " + line for line in lines[:8])
    return error


def repair(obj: Path) -> None:
    """Remove the targets that a killed make may have left incomplete.

    Kbuild writes .X.cmd after X and after the compiler's depfile .X.d. So after a kill a target is
    doubtful if it or its depfile is newer than its .cmd file, if it has none, or if the .cmd file
    is truncated. Make alone would consider such a target up to date, as its time is new and its
    saved command is right.

    Of a target without such a record, as a header that `program > $@` writes, it is known to be
    whole if an object that is whole was made from it. After a kill others of that time are removed;
    a make that fails removes them itself (.DELETE_ON_ERROR).
    """
    marker = obj / RUNNING
    if not marker.exists():
        return
    since, killed = marker.stat().st_mtime_ns, not marker.stat().st_size
    alone: list[str] = []
    for folder, _, names in os.walk(obj):
        here = set(names)
        for name in names:
            if (
                f".{name}.cmd" in here
                or f".{name}.d" in here
                or name.endswith(".o")
                and not name.startswith("piggyback.")
            ):
                _judge(folder, name, since)
            elif name.startswith(".") and name.endswith(".cmd") and name[1:-4] not in here:
                _judge(folder, name[1:-4], since)
            elif not _NOT_MADE.search(f"{folder[len(str(obj)) :]}/{name}"):
                alone.append(os.path.join(folder, name))
    # Of Linux: in busybox two files may have one rule.
    if killed and (obj / "include" / "generated").is_dir():
        _remove_unknown(obj, [path for path in alone if files.changed(path, follow=False) >= since])
    marker.unlink()


def _remove_unknown(obj: Path, paths: Iterable[str]) -> None:
    """Remove files without a record that no record names: they may be half of what they will be.

    One that was written together with one that is named, as by aicasm, is whole, too.

    Args:
        obj: The object folder, whose doubtful records are gone.
        paths: The files.
    """
    doubtful = {os.path.relpath(path, obj): path for path in paths if not os.path.islink(path)}
    top, whole = f"{obj.resolve()}/", dict[str, int]()
    if not doubtful:
        return
    for folder, _, names in os.walk(obj):
        for name in names:
            if name.endswith(".cmd"):
                with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as stream:
                    for word in _WORD.findall(stream.read()):
                        if path := doubtful.pop(os.path.normpath(word.removeprefix(top)), None):
                            whole[path] = files.changed(path)
    beside = [(os.path.dirname(path), when) for path, when in whole.items()]
    files.remove(
        *(
            path
            for path in doubtful.values()
            if not any(
                folder == os.path.dirname(path) and abs(when - files.changed(path)) < _TOGETHER_NS
                for folder, when in beside
            )
        )
    )


def _judge(folder: str, name: str, since: int) -> None:
    """Remove a target and its .cmd file if it is doubtful, and one of the two is recent.

    Args:
        folder: Their folder.
        name: The target's name.
        since: When the killed make began, ns since 1970.
    """
    target, record, depfile = (
        os.path.join(folder, part) for part in (name, f".{name}.cmd", f".{name}.d")
    )
    made, recorded, listed = (
        files.changed(path, follow=False) for path in (target, record, depfile)
    )
    doubtful = recorded < made or recorded >= since and not _whole(record) or listed > recorded
    if max(made, recorded) >= since and doubtful:
        files.remove(target, record)


def _whole(record: str) -> bool:
    """Tell whether a .cmd file is complete.

    fixdep ends its list of dependencies with the rule `$(deps_X):`; it writes such a list if the
    command makes the compiler write a depfile. Behind it there may be a line for objtool
    (gen_objtooldep in scripts/Makefile.lib).
    """
    text = Path(record).read_bytes()
    lists = (
        b"\nsource_" in text or b"\ndeps_" in text or b" -Wp,-MMD," in text or b" -Wp,-MD," in text
    )
    return text.endswith(b"\n") and (not lists or _LIST_ENDS.search(text) is not None)


def left_behind(source: Path, arch: str) -> str:
    """Return a file of an in-tree build because of which the tree's makefile refuses O=.

    The names are read from the makefile: outputmakefile in the kernel's top Makefile, prepare3 in
    busybox's.

    Args:
        source: The tree.
        arch: ARCH, from which the makefile derives a folder of arch/.

    Returns:
        The file, relative to the tree; "" for none.
    """
    try:
        text = (source / "Makefile").read_text(errors="replace")
    except OSError:
        text = ""
    check = re.search(r"-f \$\(srctree\)/\.config\b(?:[^\n]*\n){0,6}?[^\n]*not clean", text)
    names = re.findall(r"-[def] \$\(srctree\)/([^\s;\]]+)", check[0] if check else "") or [
        ".config"
    ]
    folders = dict(re.findall(r"ifeq \(\$\(ARCH\),\s*(\w+)\)\s+SRCARCH\s*:=\s*(\w+)", text))
    names = [name.replace("$(SRCARCH)", folders.get(arch, arch)) for name in names]
    return next((name for name in names if "$" not in name and (source / name).exists()), "")
