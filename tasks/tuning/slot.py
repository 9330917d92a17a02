"""A slot: a build folder of its own, in which one configuration after the other is tried.

    build/MACHINE/trials/slot-1/change.config  the change of the trial, as the last fragment
    build/MACHINE/trials/slot-1/MACHINE/       images, object folder, journal, logs
    build/MACHINE/trials/slot-1/{src,toolchains,host}  links to those of the build folder
    build/MACHINE/trials/slot-1/lock           held by the run that uses the slot

A trial is a run of doit with the slot as its build folder. So all that holds for a build holds for
it: an earlier object serves, the short way is taken, and what finished stays finished. The slot is
kept, so that the next trial finds the folder of the last one. Only its objects go into the store,
not its kernels: those of all symbols would drive everything else out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from tasks import kernel_config
from tasks.config import project as projects
from tasks.config import resolve
from tasks.config.layout import CHANGE
from tasks.config.project import Project
from tasks.graph import nested
from tasks.kconfig import fragments
from tasks.system.errors import PiggyError
from tasks.system.files import write_whole
from tasks.system.lock import Lock

FOLDER = "trials"
SHARED = ("src", "toolchains", "host")
_LOG = "trial.log"
# What a guest of a trial is like, whatever the user's own is: several run at once, and none needs
# root.
_GUEST = {"net": "user", "forward": "http=80", "guests": "1", "display": "none"}


class Slot:
    """One slot of a machine.

    Attributes:
        folder: Where it lies.
        lock: The lock of the run that uses it.
        log: What the last run of doit in it said.
    """

    def __init__(self, project: Project, number: int) -> None:
        """Name a slot; nothing is made yet.

        Args:
            project: The project whose configuration is tried.
            number: Its number, from 1 on.
        """
        self._project = project
        self.folder = project.layout.here / FOLDER / f"slot-{number}"
        self.lock = Lock(self.folder / "lock", os.fspath(self.folder))
        self.log = self.folder / _LOG

    def prepare(self) -> None:
        """Make the folder, with links to what all builds share.

        Raises:
            PiggyError: Something else is in the place of a link.
        """
        build = self._project.layout.build
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in SHARED:
            shared, link = build / name, self.folder / name
            shared.mkdir(parents=True, exist_ok=True)
            goal = os.path.relpath(os.path.realpath(shared), os.path.realpath(self.folder))
            if os.path.islink(link) and os.readlink(link) == goal:
                continue
            if os.path.lexists(link) and not os.path.islink(link):
                raise PiggyError(
                    f"{link} is in the way: a link to {shared} belongs there", "move it away"
                )
            link.unlink(missing_ok=True)
            link.symlink_to(goal)
        self.change({})

    def change(self, change: Mapping[str, str]) -> None:
        """Write the fragment of a change (symbol to value)."""
        text = "".join(f"{fragments.config_line(*item)}\n" for item in change.items())
        write_whole(self.folder / CHANGE, text)

    def words(self, change: Mapping[str, str]) -> dict[str, str]:
        """Return the settings of a run of doit in the slot.

        Without a change they are those of the user's own build. With one, all fragments are named
        as optional, the user's own included, and the change comes last: what falls with a symbol is
        no error then, and a change that does not take is one. They are named by their paths, which
        call for no table [presets.FRAGMENT], so its settings are given as well.

        Args:
            change: Symbol to value.
        """
        project = self._project
        found = {
            "machine": project.settings.machine,
            "build": os.fspath(self.folder),
            "store": os.fspath(project.layout.store),
            "jobs": "0",  # for a run under our jobserver
            "machines": "",
            **_GUEST,
        }
        if project.settings.net == "none":
            found["net"] = "none"
        if project.settings.display != "none":  # it has fragments and overlays of its own
            found["display"] = project.settings.display
        if change:
            paths = kernel_config.present_paths(project)
            names = [*(f"{path}?" for path in paths), os.fspath(self.folder / CHANGE)]
            found["fragments"] = ",".join(names)
        preset = {
            name: nested.text(getattr(project.settings, name))
            for name, origin in project.origins.items()
            if isinstance(origin, resolve.OfPreset)
        }
        return {**preset, **nested.words(project, found)}

    def project(self, change: Mapping[str, str]) -> Project:
        """Return the project as a run of doit in the slot loads it."""
        project = self._project
        return projects.load(project.top, os.environ, self.words(change))

    def run(
        self, change: Mapping[str, str], goals: Sequence[str], on_line: Callable[[str], None]
    ) -> tuple[int, list[str]]:
        """Run doit in the slot, for which the caller holds a token of our jobserver.

        Args:
            change: Symbol to value.
            goals: What to make.
            on_line: Called with each line that it says.

        Returns:
            Its exit status, and all that it said.
        """
        project, lines = self._project, list[str]()

        def heard(line: str) -> None:
            lines.append(line)
            on_line(line)

        self.change(change)
        status = nested.logged(
            project.top,
            nested.argv(self.words(change), *goals),
            self.log,
            heard,
            env=project.jobs.environment(),
        )
        return status, lines
