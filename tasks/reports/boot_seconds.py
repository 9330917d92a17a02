"""`boot_profile --wall`: boots in seconds of this host, of this build or of two in turns."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from tasks import qemu
from tasks.config.project import Project
from tasks.guest import boot as guest_boot
from tasks.guest import console
from tasks.guest.qemu import Boot
from tasks.kconfig import dotconfig
from tasks.reports import boot_other, boot_text
from tasks.reports.boot_options import Asked
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.tuning import boot_wall, builds
from tasks.tuning.builds import Build


def compare(project: Project, asked: Asked) -> None:
    """Boot this build, and the other one if there is one, and print the seconds.

    Raises:
        PiggyError: A boot fails, or --against names no build with images.
    """
    it = qemu.checked(project)
    accel = guest_boot.accelerator(project, it)
    limits = guest_boot.limits(project, accel, dotconfig.read_config(project.layout.config))
    boots = [it]
    if asked.against:
        found = (
            None
            if boot_other.counted(project.layout.here / boot_other.FOLDER, asked.against)
            else builds.named(project, asked.against)
        )
        if not isinstance(found, Build):
            raise PiggyError(
                f"'--against {asked.against}' is a {'commit' if found else 'count that was kept'},"
                " and --wall boots images",
                "name a machine or a build folder that has them, such as build/pc",
            )
        boots.append(boot_other.images(project, it, found, asked.against))

    def runner(boot: Boot, name: str) -> Callable[[], float]:
        argv = guest_boot.command(project, boot, accel, interactive=False, trial=True)
        log = project.layout.logs / f"boot_wall_{name}.log"

        def run() -> float:
            with console.session(argv, log, limits) as guest:
                return guest.ready()

        return run

    runs = [runner(boot, name) for boot, name in zip(boots, ("this", "other"), strict=False)]
    total = len(runs) * (boot_wall.LEAST + boot_wall.WARM)
    with terminal.bar("boot_profile", total, "boots") as progress:
        times = boot_wall.measure(runs, accel, lambda: os.getloadavg()[0], step=progress.step)
    if asked.as_json:
        print(msgspec.json.encode(boot_wall.told(times)).decode())
        return
    lines = boot_text.seconds(times, asked.against)
    print("\n".join(terminal.printable(line) for line in lines))
