"""Commands that are begun before it is certain that they are needed.

While the short way still checks, the compiler works on an edited source; while a task records what
it did, the compressor works on the new kernel. They write into a folder of their own. A result is
taken only in the place of the same command in the same environment, and only if nothing that it
read has changed since it began. Otherwise it is thrown away, and the command runs as ever. Of the
environment, the compressor alone has one variable more, which is about memory.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.kbuild import saved, trace
from tasks.kbuild.saved import Saved, Unfamiliar
from tasks.kbuild.trace import Said, Trace
from tasks.shortway import computed
from tasks.system import files
from tasks.system.jobserver import Budget
from tasks.system.pattern import pattern
from tasks.system.process import child, clean_env

FOLDER = "piggyback.early"
# Options by which a compiler writes more files than the object and its depfile, or their names.
_MORE = pattern(
    r" -(?:gsplit-dwarf|fstack-usage|save-temps|fdump|frecord|fprofile|fcallgraph|dumpbase|Wa,-a)"
    r"|coverage"
)
_TICK = 20_000_000  # ns; more than the step of file times (a jiffy)
# xz uses 100 MB at random: a tenth less of its time. Source: glibc's manual, "Memory Allocation
# Tunables"; an older glibc ignores it.
_LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

State = tuple[int, int, int]


class Result(msgspec.Struct, frozen=True):
    """A command that was taken: what it said, and its seconds."""

    output: str
    seconds: float


class Begun(msgspec.Struct):
    """A command that runs, or has run.

    Attributes:
        command: The command as the short way would run it.
        env: Its environment there.
        process: The shell.
        ends: Ends it, if it still runs.
        files: Each file that it makes, to where it makes it, relative to the object folder.
        read: Files that it reads, to their states.
        depfile: Where it lists what else it reads; "" for nothing.
        started: When it began, ns since 1970.
        said: The file with its output.
        stays: Whether it is for a later task.
    """

    command: str
    env: Mapping[str, str]
    process: subprocess.Popen[bytes]
    ends: contextlib.ExitStack
    files: dict[str, str]
    read: dict[str, State]
    depfile: str
    started: int
    said: Path
    stays: bool


class Early:
    """The commands that are begun early in one object folder."""

    def __init__(self, obj: Path, jobs: Budget) -> None:
        self.obj, self.jobs = obj, jobs
        self._begun: dict[str, Begun] = {}
        self._number = 0
        self._lock = threading.Lock()
        self._fresh = False

    def compile_edited(self, said: Said, sources: Collection[str], tree: Path) -> None:
        """Begin to compile edited sources.

        Args:
            said: The trace of the goal that they belong to.
            sources: The sources, absolute.
            tree: The source tree.
        """
        top = os.path.realpath(tree)
        for source in sorted(sources):
            command = object_of(self.obj, source, top)
            if command and (edges := said.edges.get(os.path.normpath(command.target))) is not None:
                self.compile(command, environment(said), edges)

    def compile(self, command: Saved, env: Mapping[str, str], reads: Collection[str] = ()) -> None:
        """Begin to compile an object, if a token is free and its command has the usual form.

        Args:
            command: The saved command.
            env: The environment of the recipes.
            reads: What make says that it is made from, which may not be in the compiler's list.
        """
        target, depfile = os.path.normpath(command.target), f"-Wp,-MMD,{command.depfile}"
        words = command.command.split(" ")
        if (
            target not in words
            or words.count(depfile) != 1
            or _MORE.search(command.command)
            or any(target in word for word in words if word not in (target, depfile))
        ):
            return
        object_file, list_file = self._name(target), self._name(command.depfile)
        named = {target: object_file, depfile: f"-Wp,-MMD,{list_file}"}
        self._begin(
            target,
            command.command,
            " ".join(named.get(word, word) for word in words),
            env,
            {target: object_file, command.depfile: list_file},
            sorted(reads),
            list_file,
        )

    def compress(self, commands: Sequence[tuple[Saved, Mapping[str, str]]]) -> None:
        """Make the uncompressed image from vmlinux, and begin to compress it.

        Args:
            commands: The saved command of the former, which reads vmlinux alone, and that of the
                latter, which reads only the former; each with its environment.
        """
        (strip, env), (compressor, later_env) = commands
        image, packed = os.path.normpath(strip.target), os.path.normpath(compressor.target)
        here, there = self._name(image), self._name(packed)
        words = strip.command.split()
        if words.count(image) != 1 or words.count("vmlinux") != 1 or words[-1] != image:
            return
        parts = [part for part in compressor.command.split(" ") if part in (image, packed)]
        if parts != [image, packed] or compressor.command.split()[-2:] != [">", packed]:
            return
        before = f"{strip.command.rstrip()[: -len(image)]}{here}"
        self._begin(image, strip.command, before, env, {image: here}, ["vmlinux"], stays=True)
        made = self._begun.get(image)
        if made is None or made.process.wait():
            return
        text = " ".join(
            {image: here, packed: there}.get(word, word) for word in compressor.command.split(" ")
        )
        with contextlib.suppress(Unfamiliar):
            text = computed.current(
                msgspec.structs.replace(compressor, command=text, text=text), self.obj
            ).command
            now = " ".join({here: image, there: packed}.get(word, word) for word in text.split(" "))
            self._begin(packed, now, text, later_env, {packed: there}, [here], stays=True)
            # it may not have opened that file yet when it gets its own name
            if begun := self._begun.get(packed):
                begun.read[image] = begun.read[here]

    def take(self, command: Saved, env: Mapping[str, str]) -> Result | None:
        """Put the results of a command in their place, if it was begun and they are valid.

        Args:
            command: The command that is to run now.
            env: Its environment.
        """
        with self._lock:
            begun = self._begun.pop(os.path.normpath(command.target), None)
        if begun is None:
            return None
        if begun.command != command.command or begun.env != env:
            self._end(begun)
            return None
        made = 0
        try:
            if begun.process.wait() or not self._unchanged(begun):
                return None
            output = begun.said.read_text(errors="replace")
            for name, file in begun.files.items():
                made = max(made, os.stat(self.obj / file).st_mtime_ns)
                self._place(file, name)
        except OSError:  # no disk, no hard links: the command itself will say so, if it matters
            return None
        finally:
            self._end(begun)
        return Result(output, max(0, made - begun.started) / 1e9)

    def _place(self, file: str, name: str) -> None:
        """Give a file its own name, and keep the other one if a command that runs reads it."""
        if file in self._needed():
            link = self.obj / self._name(name)
            os.link(self.obj / file, link)
            os.replace(link, self.obj / name)
        else:
            os.replace(self.obj / file, self.obj / name)

    def _needed(self) -> set[str]:
        """Return what the commands read that have begun and were not taken yet."""
        with self._lock:
            return {name for one in self._begun.values() for name in one.read}

    def drop(self, later: bool = True) -> None:
        """End what was begun and not taken.

        Args:
            later: Whether to end what is for later tasks, too.
        """
        with self._lock:
            ended = [name for name, one in self._begun.items() if later or not one.stays]
            dropped = [self._begun.pop(name) for name in ended]
        for one in dropped:
            self._end(one)

    def _name(self, target: str) -> str:
        self._number += 1
        return f"{FOLDER}/{os.getpid()}-{self._number}-{os.path.basename(target)}"

    def _begin(
        self,
        target: str,
        command: str,
        text: str,
        env: Mapping[str, str],
        makes: dict[str, str],
        reads: Sequence[str] = (),
        depfile: str = "",
        stays: bool = False,
    ) -> None:
        """Start a shell; see Begun for the arguments, `text` is what it runs."""
        # A child ends with the thread that started it (prctl(2), PR_SET_PDEATHSIG), and a task of
        # `doit -n 2` with its own.
        if self.jobs.size < 2 or threading.current_thread() is not threading.main_thread():
            return
        if (give_back := self.jobs.claim()) is None:
            return
        folder, ends = self.obj / FOLDER, contextlib.ExitStack()
        try:
            if not self._fresh:  # a killed run may have left something
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                self._fresh = True
            said = self.obj / self._name("said")
            read = {name: self._state(name) for name in reads}
            started = time.time_ns()
            with said.open("wb") as output:
                process = ends.enter_context(
                    child(
                        ["sh", "-c", f"set -e\n{text}"],
                        vfork=True,
                        cwd=self.obj,
                        env={**env, **(_LARGE_PAGES if stays else {})},
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )
        except OSError:  # no memory, no disk: the command itself will say so
            give_back()
            return
        threading.Thread(target=_wait, args=[process, give_back], daemon=True).start()
        with self._lock:
            self._begun[target] = Begun(
                command, dict(env), process, ends, makes, read, depfile, started, said, stays
            )

    def _state(self, name: str) -> State:
        info = os.stat(self.obj / name)
        return info.st_ino, info.st_size, info.st_mtime_ns

    def _unchanged(self, begun: Begun) -> bool:
        """Tell whether all that a command read is as it was when it began."""
        try:
            if any(self._state(name) != state for name, state in begun.read.items()):
                return False
            if not begun.depfile:
                return True
            text = (self.obj / begun.depfile).read_text()
            if re.search(r"\\[^\n]|\$", text):  # a name that make would have to read
                return False
            limit = begun.started - _TICK
            for name in text.partition(":")[2].replace("\\\n", " ").split():
                info, turned = os.stat(self.obj / name), files.turned(self.obj / name)
                if max(info.st_mtime_ns, info.st_ctime_ns, turned) > limit:
                    return False
        except (OSError, UnicodeDecodeError):
            return False
        return True

    def _end(self, begun: Begun) -> None:
        """End a command and remove what is left of it."""
        begun.ends.close()
        ended = {*begun.files.values(), os.path.relpath(begun.said, self.obj), *begun.read}
        for name in ended - self._needed():
            if not name.startswith(FOLDER):
                continue
            with contextlib.suppress(OSError):
                os.remove(self.obj / name)


def _wait(process: subprocess.Popen[bytes], give_back: Callable[[], None]) -> None:
    """Wait for a command, and give its token back."""
    process.wait()
    give_back()


_folders: dict[str, Early] = {}


def of(obj: Path, jobs: Budget) -> Early:
    """Return what is begun early in an object folder; the end of this process ends it, too."""
    name = os.path.abspath(obj)
    if name not in _folders:
        _folders[name] = Early(obj, jobs)
        atexit.register(_folders[name].drop)
    return _folders[name]


def object_of(obj: Path, source: str, tree: str) -> Saved | None:
    """Return the saved command that compiles a source to the object beside it, if there is one.

    Args:
        obj: The object folder.
        source: The source, absolute.
        tree: The tree, absolute.
    """
    base, suffix = os.path.splitext(os.path.relpath(source, tree))
    if suffix not in (".c", ".S") or base.startswith("../"):
        return None
    folder, name = os.path.split(base)
    try:
        command = saved.read(os.path.join(obj, folder, f".{name}.o.cmd"))
    except Unfamiliar:
        return None
    same = command.compiles and os.path.realpath(obj / command.source) == os.path.realpath(source)
    return command if same else None


def commands_of(
    obj: Path, traces: Trace, first: str, links: Sequence[tuple[str, str]]
) -> list[tuple[Saved, Mapping[str, str]]]:
    """Return the saved commands of two links after a target, each with its environment.

    There are none if they read anything else.

    Args:
        obj: The object folder.
        traces: The traces of all goals.
        first: The target.
        links: Name and target of each link.
    """
    before, commands = first, list[tuple[Saved, Mapping[str, str]]]()
    for name, target in links:
        said = traces.goals.get(name)
        if said is None or {
            one for one in said.edges.get(target, ()) if not one.startswith("/")
        } != {before}:
            return []
        with contextlib.suppress(Unfamiliar):
            commands.append((saved.read(trace.record_of(obj, target)), environment(said)))
        before = target
    return commands if len(commands) == 2 else []


def environment(said: Said) -> dict[str, str]:
    """Return the environment of a goal's saved commands."""
    env = {**clean_env(), **said.env}
    if "LC_ALL" not in said.env:
        del env["LC_ALL"]  # Kbuild unsets it
    return env
