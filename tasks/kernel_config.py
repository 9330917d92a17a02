"""The kernel's configuration: fragments in, a checked .config out.

    configs/kernel/*.config, in order ---------------+
    configs/kernel/local/MACHINE.config (menuconfig) +
    toolchain, the tree's Kconfig files -------------+-> kernel_config -> images/{miniconfig,config}
                                                                       -> kernel/VERSION/.config

menuconfig edits the configuration in force, and keeps the changes in
configs/kernel/local/MACHINE.config. savedefconfig writes the smallest fragment that gives the
configuration in force.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tasks.config.project import Project
from tasks.fetch import unpack
from tasks.graph.reason import Reason
from tasks.graph.task import Job, Kept, Makes, Needs, TaskDict
from tasks.kbuild import configure as configuration
from tasks.kbuild import records, unrecorded
from tasks.kbuild.configure import Kconfig, by_contract, put, run_goal
from tasks.kconfig import dotconfig, fragments
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.files import write_whole
from tasks.toolchains import record

TOOLS = ["make", "gcc", "flex", "bison"]
# Programs that Kconfig asks for their version, or whether they are there: init/Kconfig
# (PAHOLE_VERSION, RUSTC_VERSION_TEXT), scripts/rust_is_available.sh.
ASKED = ["pahole", "rustc", "bindgen"]


def fragment_paths(project: Project) -> tuple[Path, ...]:
    """Return the fragments in order, without the user's own.

    First come those of the machine, then of the image booted, of its network card, of its display,
    and of the setting. Before each come those that it includes.
    """
    kernel, card = project.machine.kernel, project.nic
    own = [name for name in kernel.fragments if not card or name not in card.instead_of]
    names = (
        *own,
        *kernel.boots.get(project.image, ()),
        *(card.fragments if card else ()),
        *project.display.fragments,
    )
    paths = (Path("configs") / "kernel" / f"{name}.config" for name in names)
    return fragments.with_included((*paths, *project.fragments))


def optional_paths(project: Project) -> frozenset[Path]:
    """Return those of the setting's fragments of which nothing need take, with what they include.

    One that a fragment without a question mark includes as well is not optional.
    """
    optional = project.optional_fragments
    firm = [path for path in project.fragments if path not in optional]
    return frozenset(fragments.with_included(optional)).difference(fragments.with_included(firm))


def present_paths(project: Project) -> tuple[Path, ...]:
    """Return the fragments in order, with the user's own if there is one."""
    return fragments.present(fragment_paths(project), project.layout.kernel_fragment)


def modular(project: Project) -> bool:
    """Tell whether the kernel can have modules.

    The request for CONFIG_MODULES in the fragments decides. Without one the answer is yes if the
    base is a configuration of the kernel's own, which may have modules, and no otherwise.
    """
    # Cached like a cached_property of the project: several stages ask, and merging the fragments
    # takes some milliseconds.
    known = vars(project)
    if "modular" not in known:
        asked = fragments.merge(present_paths(project), optional_paths(project)).requests.get(
            "MODULES"
        )
        known["modular"] = (
            asked.value == "y"
            if asked
            else project.machine.kernel.base not in ("allnoconfig", "tinyconfig")
        )
    return bool(known["modular"])


def stored(project: Project) -> bool:
    """Tell whether the store keeps what is made of the kernel.

    It does not while there is an external module (src=). That is compiled against the files that
    make leaves in the object folder, and these are not in the store. Nor does it keep the kernels
    of trials, of which there are many and whose rows are kept.
    """
    return not project.settings.src and not project.layout.trial


def source_files(project: Project) -> list[Path]:
    """Return the file that stands for the kernel tree as an input; none for one of the user's."""
    return unpack.standing_for(project.layout.kernel_src, project.settings.kernel_src)


def variables(project: Project) -> dict[str, str]:
    """Return the make variables of every call of the kernel's Makefile."""
    tool = record.read(project)
    return {
        "ARCH": project.machine.arch,
        "CROSS_COMPILE": tool.prefix,
        **tool.variables,
        **project.machine.kernel.variables,
    }


def flat(variables: Mapping[str, str]) -> str:
    """Return make variables as one line."""
    return " ".join(f"{name}={value}" for name, value in variables.items())


def tree(project: Project) -> Kconfig:
    """Return the kernel as a tree to configure."""
    return Kconfig(
        "the kernel",
        project.layout.kernel_src,
        project.layout.kernel_obj,
        project.machine.kernel.base,
        fragment_paths(project),
        project.layout.kernel_fragment,
        variables(project),
        project.layout.config,
        project.layout.miniconfig,
        tools=record.read(project).id,
        optional=optional_paths(project),
        without_make=True,
    )


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `kernel_config`, `menuconfig` and `savedefconfig`."""
    yield from configuration.tasks(
        project,
        "kernel",
        {"config": configure, "menuconfig": menuconfig, "savedefconfig": savedefconfig},
        paths=present_paths(project),
        optional=optional_paths(project),
        inputs=Needs(
            files=[*source_files(project), project.layout.toolchain_record],
            settings={
                "base": project.machine.kernel.base,
                "arch": project.machine.arch,
                "tree": Path(project.layout.kernel_place),
                "variables": flat(project.machine.kernel.variables),
            },
            tools=[*TOOLS, *ASKED],
        ),
        outputs=Makes(
            targets=[project.layout.config, project.layout.miniconfig],
            place=project.layout.kernel_obj,
        ),
        store=Kept(when=stored(project), folders=record.folders, news=news),
    )


def configure(job: Job) -> dict[str, object]:
    """Configure by contract (see kbuild/configure.py), then have Kconfig write auto.conf.

    Returns:
        What the task learned: the Kconfig files that were read, and notes on changed symbols.

    Raises:
        PiggyError: A request did not take.
    """
    project = job.project
    kernel = tree(project)
    told = news(project)
    left_out = [*project.machine.kernel.patches, *filter(None, [project.settings.patches])]
    if project.settings.kernel_src and left_out:
        terminal.line("note", f"kernel_src= is built as it is, without {', '.join(left_out)}")
    by_contract(job, kernel)
    run_goal(job, kernel, "syncconfig")
    files = records.kconfig_files(project.layout.kernel_obj, project.layout.kernel_src)
    return {
        "discovered": [*files, *unrecorded.kconfig(project.layout.kernel_src, files, kernel.base)],
        "notes": told(),
    }


def news(project: Project) -> Callable[[], list[Reason]]:
    """Read the present configuration, and return a function that tells how the next one differs."""
    before: Mapping[str, str] = {}
    with contextlib.suppress(PiggyError):  # it is missing or cut short, and will be made again
        before = dotconfig.read_config(project.layout.config)
    return lambda: changes(project, before)


def changes(project: Project, before: Mapping[str, str]) -> list[Reason]:
    """Print and return how the configuration in force differs from an earlier one.

    Args:
        project: The project.
        before: The earlier configuration.

    Returns:
        A note for each symbol, with the request behind the change if there is one; those
        first.
    """
    after = dotconfig.read_config(project.layout.config)
    asked = tree(project).asked().requests
    found = (
        [
            Reason(
                "note",
                f"CONFIG_{symbol}",
                before.get(symbol, "n"),
                after.get(symbol, "n"),
                asked[symbol].where if symbol in asked else "",
            )
            for symbol in dotconfig.differences(before, after)
        ]
        if before
        else []
    )
    for note in found[:10]:
        terminal.line("changed", str(note))
    if len(found) > 10:
        terminal.line("changed", f"and {len(found) - 10} more")
    return sorted(found, key=lambda note: not note.where)


def menuconfig(job: Job) -> None:
    """Edit the configuration in force (see kbuild/menuconfig.py)."""
    from tasks.kbuild.menuconfig import edit

    edit(job, tree(job.project))


def savedefconfig(job: Job) -> None:
    """Write images/fragment.config and images/defconfig.

    The first is the smallest fragment that gives the configuration in force. The second is the
    kernel's own format, which names only differences from Kconfig's defaults.
    """
    from tasks.kbuild.menuconfig import smallest

    project = job.project
    kernel = tree(project)
    fragment = project.layout.images / "fragment.config"
    write_whole(fragment, smallest(job, kernel))
    put(project.layout.config, project.layout.kernel_obj / ".config")
    run_goal(job, kernel, "savedefconfig")
    (project.layout.kernel_obj / "defconfig").replace(project.layout.images / "defconfig")
    terminal.line(
        "savedefconfig",
        f"{fragment} ({len(fragment.read_text().splitlines())} lines),"
        f" {project.layout.images / 'defconfig'}",
    )
