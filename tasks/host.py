"""The host: the programs and files it must have, and whether it has them.

configs/packages.toml + the machine -> setup   installs what is missing
                                    -> doctor  reports each tool, disk space, KVM, and what
                                    keeps
                                               Buildroot from working
"""

from __future__ import annotations

import collections
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.buildroot import traps
from tasks.config import packages
from tasks.config.packages import Need
from tasks.config.project import Project
from tasks.graph.task import Command, Job, TaskDict, task
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.process import foreground, pasteable, run

LAST = 8  # lines of a package manager's output that are shown when it fails
# Bytes on the disk for a first build: 1.5 GB for the kernel's tree, 0.15 GB for its archive, 0.2 GB
# for the objects of a small kernel, and a reserve.
ROOM = 4 << 30


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `setup` and `doctor`."""
    yield task(
        project,
        "setup",
        "install the host packages that are missing (with sudo when not root)",
        setup,
        command=Command(),
    )
    yield task(
        project,
        "doctor",
        "report every tool, disk space, and whether KVM works",
        doctor,
        command=Command(reads=True),
    )


def needed(project: Project, table: packages.Table) -> list[Need]:
    """Return what the selected machine, network and toolchain need on the host."""
    settings = project.settings
    return packages.needs(table, project.machine, settings.net, settings.toolchain, settings.llvm)


def setup(job: Job) -> None:
    """Install missing packages with the host's package manager, printing the commands first.

    The package manager's output goes to the task's log.

    Raises:
        PiggyError: There is no known package manager or no sudo, a command fails, or something is
            still missing afterwards.
    """
    project = job.project
    table = packages.load(project.top)
    missing = [need for need in needed(project, table) if not need.found]
    if not missing:
        terminal.line("setup", "nothing is missing")
        return
    names = ", ".join(need.name for need in missing)
    manager = packages.manager_of_host(table)
    if not manager:
        raise PiggyError(
            f"missing on this host: {names}; and it has none of {', '.join(table.managers)}",
            "install them by hand; 'doit doctor' says what each is for",
        )
    terminal.line("setup", f"missing: {names}")
    untried = packages.untried(table, manager)
    if untried:
        terminal.line("", untried)
    commands = packages.commands(table, manager, missing)
    if commands[0][0] == "sudo" and not shutil.which("sudo"):
        raise PiggyError(
            "packages are missing, you are not root, and there is no sudo",
            "as root: " + " && ".join(shlex.join(words[1:]) for words in commands),
        )
    started = time.monotonic()
    for argv in commands:
        terminal.write("  $ " + shlex.join(argv), sys.stdout)
        install(argv, job.log)
    still = [need.name for need in needed(project, table) if not need.found]
    if still:
        raise PiggyError(
            f"still missing after the installation: {', '.join(still)}",
            "is configs/packages.toml right for this distribution? It names "
            + ", ".join(need.packages[manager] for need in missing)
            + f"\nlog: {job.log}",
        )
    terminal.line(
        "setup", f"installed ({terminal.took(time.monotonic() - started)}); its output: {job.log}"
    )


def install(argv: Sequence[str], log: Path) -> None:
    """Run one command of a package manager, and show the last line of its output meanwhile.

    The command has the terminal, so that sudo can ask for a password.

    Args:
        argv: The command.
        log: The file that gets the output.

    Raises:
        PiggyError: It fails; the hint has its last lines.
    """
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    last = collections.deque[str](maxlen=LAST)
    log.parent.mkdir(parents=True, exist_ok=True)
    label = " ".join(argv[argv[0] == "sudo" :][:2])
    with log.open("a", encoding="utf-8", errors="replace") as sink, terminal.status(label) as show:
        sink.write(f"$ {pasteable(argv, None, env)}\n")

        def on_line(text: str) -> None:
            sink.write(text + "\n")
            sink.flush()
            shown = text.rstrip("\r").rpartition("\r")[2]  # apt draws over its own lines
            last.append(terminal.printable(shown))
            show(last[-1])

        status = foreground(argv, env=env, on_line=on_line)
    if status:
        raise PiggyError(
            f"'{shlex.join(argv)}' ended with status {status}",
            "\n".join(
                [
                    "is the network up, and do you have the right to install? Its last lines:",
                    *(f"    {text}" for text in last),
                    f"log: {log}",
                ]
            ),
        )


def doctor(job: Job) -> None:
    """Print a line for each tool, the free disk space, and KVM's state.

    Raises:
        PiggyError: Something is missing, or Buildroot can't work here and is the provider.
    """
    from tasks.guest import kvm

    project = job.project
    table = packages.load(project.top)
    manager = packages.manager_of_host(table) or "apt"
    all_needs = needed(project, table)
    for need in all_needs:
        state = (
            version(need)
            if need.found
            else f"MISSING: package {need.packages[manager]} ({need.why})"
        )
        terminal.line(need.name, state)
    for label, folder in (("build", project.layout.build), ("dl", project.layout.dl)):
        existing = next(
            path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
        )
        free = shutil.disk_usage(existing).free
        little = "" if free > ROOM else f"  TOO LITTLE: a first build needs {ROOM >> 30} GB"
        terminal.line(f"disk for {label}/", f"{free / (1 << 30):.1f} GB free{little}")
    found = traps.traps(project) if project.settings.toolchain == "buildroot" else []
    for word, state, _ in found:
        terminal.line(word, state)
    qemu = project.machine.qemu
    if qemu and shutil.which(qemu.binary):
        answer = kvm.choose(
            "auto", project.machine.arch, qemu.binary, project.layout.build / "host" / "kvm.json"
        )
        terminal.line("KVM", f"{'works' if answer.accel == 'kvm' else 'not used'}: {answer.reason}")
    missing = [need.name for need in all_needs if not need.found]
    if missing:
        raise PiggyError(
            f"missing on this host: {', '.join(missing)}", "'doit setup' installs what is missing"
        )
    bad = [state for _, state, fatal in found if fatal]
    if bad:
        raise PiggyError(f"Buildroot can't work here: {bad[0]}", "; ".join(bad[1:]))


def version(need: Need) -> str:
    """Return the line in which a tool tells its version, or a file's path."""
    if not need.program:
        return need.found
    for flag in ("--version", "-V"):
        try:
            done = run([need.found, flag], check=False)
        except OSError:
            continue
        for line in [] if done.returncode else done.output.splitlines():
            if any(map(str.isdigit, line)):
                return line.strip()
    return need.found
