"""The host's side of the network: a bridge with taps for the guests, made and removed again.

    net=nat      bridge, address, ip_forward, NAT, dnsmasq -+
    net=bridged  uplink= becomes a port of the bridge ------+-> net_up -> /run/piggyback -> net_down

    net_status   bridge, ports, leases, counters, traps

net=user (QEMU's own) and net=lab (namespaces) change nothing on the host, and need none of these
tasks.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.config.project import Project
from tasks.graph.task import Command, Job, TaskDict, task
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.files import write_whole
from tasks.system.process import foreground, run
from tasks.system.terminal import printable

if TYPE_CHECKING:
    from tasks.network.plan import Request
    from tasks.network.steps import Plan

_NOBODY = 0xFFFFFFFF  # (uid_t) -1, which is not a user: chown(2)
_DRY = {
    "name": "dry_run",
    "long": "dry-run",
    "type": bool,
    "default": False,
    "help": "only show what would be done",
}
_YES = {
    "name": "yes",
    "long": "yes",
    "type": bool,
    "default": False,
    "help": "even if this host may be cut off by it",
}


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `net_up`, `net_down` and `net_status`, for machines that QEMU emulates."""
    if project.machine.qemu is None:
        return
    yield task(
        project,
        "net_up",
        "make the host's bridge for net=nat or net=bridged; --dry-run only shows it",
        net_up,
        command=Command(params=[_DRY, _YES]),
    )
    yield task(
        project,
        "net_down",
        "undo exactly what net_up did; --dry-run only shows it",
        net_down,
        command=Command(params=[_DRY]),
    )
    yield task(
        project,
        "net_status",
        "bridge, ports, leases, counters, and the usual traps with their remedies",
        net_status,
        command=Command(reads=True),
    )


def request(project: Project, consent: bool) -> Request:
    """Return the network that the settings ask for, and for whom.

    Args:
        project: The project.
        consent: Whether the user accepts being cut off.
    """
    from tasks.network import record
    from tasks.network.plan import Request

    settings = project.settings
    session = os.environ.get("SSH_CONNECTION", "").split()  # "CLIENT PORT SERVER PORT", sshd(8)
    return Request(
        bridge=settings.bridge,
        uplink=settings.uplink,
        address=settings.bridge_address,
        guests=settings.guests,
        owner=owner(os.environ),
        mac=_mac(),
        run_dir=str(record.place()),
        consent=consent,
        ssh=session[2] if len(session) == 4 else "",
    )


def owner(environ: Mapping[str, str]) -> int:
    """Return the number of the user who gets the taps: ours, or with sudo the caller's (sudo(8)).

    Raises:
        PiggyError: SUDO_UID is not a user's number.
    """
    sudo_uid = environ.get("SUDO_UID", "")
    if os.geteuid() or not sudo_uid:
        return os.getuid()
    if not re.fullmatch("[0-9]{1,10}", sudo_uid) or int(sudo_uid) >= _NOBODY:
        raise PiggyError(
            f"SUDO_UID={printable(sudo_uid)[:40]} in the environment is no user's number",
            "sudo sets it; without it the guests' taps are root's: env -u SUDO_UID doit net_up",
        )
    return int(sudo_uid)


def _mac() -> str:
    """Return a random locally administered hardware address (IEEE 802, section 8.4)."""
    return "02:" + ":".join(f"{byte:02x}" for byte in os.urandom(5))


def plan(project: Project, consent: bool) -> Plan:
    """Return what net_up would do now.

    Args:
        project: The project.
        consent: Whether the user accepts being cut off.

    Raises:
        PiggyError: Something is in the way.
    """
    from tasks.network import state, trust
    from tasks.network.plan import bridged, nat

    mode = project.settings.net
    if mode not in ("nat", "bridged"):
        raise PiggyError(
            f"net={mode} takes nothing on the host"
            + (": 'doit net=lab qemu_boot' makes all it needs" if mode == "lab" else ""),
            "net=nat or net=bridged does",
        )
    host, network = state.observe(), request(project, consent)
    if mode == "nat":
        found = nat(host, network)
    else:
        wireless = any(
            Path(f"/sys/class/net/{network.uplink}/{name}").exists()
            for name in ("wireless", "phy80211")
        )
        found = bridged(host, network, wireless)
    # The program that runs as root would refuse a name of this host that trust.py does not take.
    trust.check(found, network.run_dir)
    return found


def net_up(job: Job, dry_run: bool = False, yes: bool = False) -> None:
    """Print the plan, then apply it as root.

    Args:
        job: The run of the task.
        dry_run: Only print.
        yes: Go on even if this host may be cut off.

    Raises:
        PiggyError: Something is in the way, or a step fails.
    """
    import msgspec

    from tasks.network import record
    from tasks.network.steps import shown

    project = job.project
    last = record.read(record.place())
    fresh = last and last.boot == record.boot_id()
    if last and last.complete and fresh:
        todo = _same(project, last.plan, yes)
        terminal.line(
            "net_up",
            f"{todo.mode} on {todo.bridge} is up; what no longer holds of it is done again",
        )
    else:
        if last and fresh:
            terminal.line("net_up", "an earlier one was interrupted: what it did is undone first")
            net_down(job, dry_run)
            if dry_run:
                return
        todo = plan(project, yes)
        for warning in todo.warnings:
            terminal.line("note", printable(warning))
        terminal.line("net_up", f"{todo.mode} on {todo.bridge}, {len(todo.steps)} steps:")
        for step in todo.steps:
            print(
                "    " + printable(shown(step.do, step.stdin)).replace("\n", "\n    "), flush=True
            )
    if dry_run:
        return
    _as_root(project, ["up"], "net_up", msgspec.json.format(msgspec.json.encode(todo)))
    _warn(project, todo)
    terminal.line(
        "net_up",
        f"up: 'doit net={todo.mode} qemu_boot' boots a guest on it, 'doit net_down' takes it away",
    )


def _warn(project: Project, up: Plan) -> None:
    """Print the traps for guests that remain."""
    from tasks.network import report, state

    for word, text in report.of_traps(state.observe(), up, project.settings):
        if word != "traps":
            terminal.line(word, printable(text))


def _same(project: Project, up: Plan, consent: bool) -> Plan:
    """Return the plan in force, if it is for the same request.

    Raises:
        PiggyError: It is not.
    """
    from tasks.network.plan import interface, taps

    network = request(project, consent)
    address = str(interface(network.address)) if project.settings.net == "nat" else ""
    asked = (project.settings.net, network.bridge, taps(network), address, network.uplink)
    names = ("net", "bridge", "guests", "bridge_address", "uplink")
    differ = [name for name, one, other in zip(names, up.asked, asked, strict=True) if one != other]
    if differ:
        raise PiggyError(
            f"net={up.mode} is up on {up.bridge}, with another {' and '.join(differ)}",
            "doit net_down first",
        )
    return up


def net_down(job: Job, dry_run: bool = False) -> None:
    """Undo the recorded steps, if there is a record.

    Args:
        job: The run of the task.
        dry_run: Only print.

    Raises:
        PiggyError: A step can't be undone.
    """
    from tasks.network import record, state
    from tasks.network.steps import shown

    folder = record.place()
    last = record.read(folder)
    if last is None:
        terminal.line("net_down", "nothing is up")
        return
    steps = (
        [step for step in reversed(last.plan.steps[: last.begun]) if state.holds(step.holds)]
        if last.boot == record.boot_id()
        else []
    )
    if not steps:
        rebooted = last.boot != record.boot_id()
        terminal.line("net_down", "all is undone already" + (" by a reboot" if rebooted else ""))
    for words in (words for step in steps for words in step.undo):
        print("    " + shown(words), flush=True)
    if not dry_run:
        _as_root(job.project, ["down"], "net_down")
        terminal.line("net_down", "down; the host is as it was")


def _as_root(project: Project, arguments: list[str], name: str, plan: bytes | None = None) -> None:
    """Run the program that applies or undoes steps, by sudo unless we are root.

    Args:
        project: The project.
        arguments: Its arguments.
        name: The task.
        plan: Its standard input.

    Raises:
        PiggyError: sudo can't be used, or the program fails. Without sudo the plan is in a file,
            and the hint has the command to run by hand.
    """
    argv = [sys.executable, "-B", "-m", "tasks.network.apply", *arguments]
    if os.geteuid():
        without = not shutil.which("sudo")
        if (
            without
            or not sys.stdin.isatty()
            and run(["sudo", "-n", "true"], check=False).returncode
        ):
            by_hand = (
                f"cd {shlex.quote(os.fspath(project.top))} &&"
                f" {'' if without else 'sudo '}{shlex.join(argv)}"
            )
            if plan is not None:
                file = (project.layout.build / "net" / "plan.json").absolute()
                write_whole(file, plan)
                by_hand += f" <{shlex.quote(os.fspath(file))}"
            raise PiggyError(
                f"{name} needs root, and "
                + ("there is no sudo" if without else "sudo can't ask for a password here"),
                "as root: " * without + by_hand,
            )
        argv = ["sudo", *argv]
    if foreground(argv, cwd=project.top, stdin=plan):
        raise PiggyError(
            f"{name} failed, as is said above", "'doit net_status' shows what is there"
        )


def net_status(job: Job) -> None:
    """Print the state of the network, and its traps."""
    from tasks.network import report

    for word, text in report.lines(job.project.settings):
        terminal.line(printable(word), printable(text))
