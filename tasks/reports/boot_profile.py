"""Count a boot in instructions, from reset to the shell's answer, and say what brought each bar.

images/BOOTED + rootfs.ext2, or initramfs -> boot_profile -> boot_profile/DIGEST.json

    boot_profile                  the waterfall: phases, initcalls, probes, programs
    boot_profile --against last   both boots, bar by bar
    boot_profile --limit 120M     fail if it takes more
    boot_profile --trace FILE     the same for Perfetto
    boot_profile --wall           seconds on this host instead; --against BUILD: of two builds
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tasks import qemu
from tasks.cache.digests import content_digest
from tasks.config.project import Project
from tasks.graph.task import Command, Job, Needs, TaskDict, task
from tasks.guest import boot as guest_boot
from tasks.guest import marks
from tasks.kconfig import dotconfig
from tasks.reports import boot_options, boot_other, boot_reasons, boot_seconds, boot_text
from tasks.reports import options as options_of
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.files import explained, replacing, write_whole
from tasks.tuning import boot, boot_points, boot_run, builds, count, sizes
from tasks.tuning.boot import Profile
from tasks.tuning.builds import Build


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `boot_profile`, for a machine that QEMU emulates."""
    if project.machine.qemu is None:
        return
    yield task(
        project,
        "boot_profile",
        "count the boot in instructions, bar by bar: boot_profile [--against REF]",
        profile,
        inputs=Needs(files=qemu.boot_files(project)),
        command=Command(params=boot_options.PARAMS, check=boot_options.check),
    )


def profile(job: Job, **options: Any) -> None:
    """Boot, count, keep the profile, and print it.

    Args:
        job: The task's job.
        options: As `boot_options.PARAMS` has them.

    Raises:
        Exceeded: The boot exceeds its limit.
        PiggyError: It can't work or be counted.
    """
    project = job.project
    asked = boot_options.Asked(**options)
    limit = boot_options.limit(asked.limit)
    if asked.wall:
        boot_seconds.compare(project, asked)
        return
    folder = project.layout.here / boot_other.FOLDER
    other = (
        boot_other.named(project, folder, asked.against)
        if asked.against not in ("", "last")
        else None
    )
    target = options_of.target("--trace", asked.trace) if asked.trace else None
    old = measured(project, other, asked.against) if isinstance(other, Build) else other
    new = measured(project)
    try:
        if asked.against == "last":
            old = boot_other.last(folder, new.state)
    finally:
        _keep(folder, new)  # so that the next boot has one to be compared with
    changes = boot.compare(old, new) if old else []
    if asked.as_json:
        told = msgspec.to_builtins(new)
        if old:
            told["against"] = {
                "instructions": old.instructions,
                "bars": msgspec.to_builtins(old.bars),
                "changes": msgspec.to_builtins(changes),
            }
        print(msgspec.json.encode(told).decode())
    else:
        for note in new.notes:
            terminal.line("note", note)
        lines = (
            boot_text.against(old, new, changes, asked.whole)
            if old
            else boot_text.waterfall(new, asked.whole)
        )
        print("\n".join(terminal.printable(line) for line in lines))
    if target:
        text = boot.trace(new, old).encode()
        with explained(target, len(text)), replacing(target) as draft:
            draft.write_bytes(text)
    if limit:
        limit.check(new)


def measured(project: Project, other: Build | None = None, word: str = "") -> Profile:
    """Boot the machine of the present settings, and return its profile.

    Args:
        project: The project.
        other: A build whose images are booted in place of the present ones.
        word: What the user called it.

    Raises:
        PiggyError: The boot can't work or be counted.
    """
    machine = project.machine.qemu
    assert machine is not None
    it = qemu.checked(project)
    build = other or builds.of_project(project)
    if other:
        it = boot_other.images(project, it, other, word)
    config = dotconfig.read_config(build.config or project.layout.config)
    if other:
        boot_other.refuse_another(project.layout.images / "vmlinux", build.vmlinux, word)
    kernel = sizes.kernel(build.vmlinux)
    points = boot_points.points(kernel, config, project.machine.arch, project.image)
    notes = boot_run.incomplete(points, project.machine.arch)
    notes += [
        f"{one}, so counts differ by some 0.1 % from run to run;"
        f" with {one.without} they are the same to the instruction"
        for one in count.in_host_time(
            it.rootfs is not None, (it.nic or machine.nic) if it.net else ()
        )
    ]

    def command(serial: str, extra: Sequence[str]) -> list[str]:
        return guest_boot.command(
            project, it, "tcg", interactive=False, trial=True, serial=serial, extra=extra
        )

    boot_run.refuse_random(config, command("", ()))
    library = marks.plugin(machine.binary, project.layout.here / boot_other.FOLDER)
    log = project.layout.logs / f"boot_profile{'_other' if other else ''}.log"
    most = project.settings.timeout
    events = boot_run.record(command, library, points, project.machine.arch, log, most)
    if project.machine.arch in boot_points.REGISTERS:
        notes += boot_run.unseen(events, points)
    found = boot.bars(events, int(config.get("HZ", "100")))
    words = [word for word in command("", ()) if not word.startswith("/")]
    state = hashlib.sha256("\0".join(words).encode())
    for path in filter(None, (it.kernel, it.rootfs or it.initrd, build.config, it.floppy, it.dtb)):
        state.update(content_digest(path).encode())
    top = [bar for bar in found if not bar.depth]
    record = sizes.measure(build)
    notes += sizes.notes(record)
    return Profile(
        machine=project.settings.machine,
        state=state.hexdigest(),
        instructions=events[-1].count,
        milliseconds=events[-1].count // 1_000_000 + sum(bar.slept for bar in top),
        bytes=events[-1].bytes,
        bars=tuple(boot_reasons.explained(project, found, record)),
        notes=tuple(notes),
        commits=() if other else tuple(builds.commits(project)),
    )


def latest(project: Project) -> Profile | None:
    """Return the machine's profile that was kept last; None if there is none that can be read."""
    try:
        return boot_other.last(project.layout.here / boot_other.FOLDER)
    except PiggyError:
        return None


def before(project: Project, word: str) -> Profile:
    """Return the kept profile that the last one is to be compared with.

    Args:
        project: The project.
        word: What `--against` takes, but for a build: nothing is booted.

    Raises:
        PiggyError: It names no kept profile, or no boot was counted.
    """
    folder = project.layout.here / boot_other.FOLDER
    present = boot_other.last(folder).state
    found = (
        boot_other.last(folder, present)
        if word == "last"
        else boot_other.named(project, folder, word)
    )
    if isinstance(found, Build):
        raise PiggyError(
            f"'--against={word}' is a build whose boot was not counted",
            f"'doit boot_profile --against={word}' boots it; the page has counts that were kept",
        )
    return found


def _keep(folder: Path, new: Profile) -> None:
    """Keep a profile under its digest, with the commits at which it was made before, too."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{new.state[:16]}.json"
    before: tuple[str, ...] = ()
    with contextlib.suppress(PiggyError):
        before = boot_other.read(place).commits
    new = msgspec.structs.replace(new, commits=tuple(dict.fromkeys((*new.commits, *before))))
    write_whole(place, msgspec.json.encode(new))
