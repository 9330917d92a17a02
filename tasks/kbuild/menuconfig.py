"""Editing of a configuration; the choices become a fragment of the user's own.

current .config -> make menuconfig -> differences -> own fragment, verified to give the same .config
"""

from __future__ import annotations

from collections.abc import Mapping

from tasks.config.project import EPOCH
from tasks.graph.task import Job
from tasks.kbuild import configure, make
from tasks.kconfig import dotconfig, fragments, minimal, symbols
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.files import copy_whole, write_whole
from tasks.system.process import foreground


def edit(job: Job, tree: configure.Kconfig) -> None:
    """Open the editor on the current configuration, and save changes as the user's own fragment.

    The fragment has all differences from the result of the other fragments, so that earlier choices
    stay. Before it is written, it is verified: all fragments together give what the editor saved.

    Raises:
        PiggyError: The editor failed, or no fragment gives the edited configuration.
    """
    live = tree.obj / ".config"
    configure.fresh(tree)  # the configuration may have come from the store
    configure.put(tree.full, live)
    old = dotconfig.read_config(live)
    project = job.project
    with project.lock.released():  # others may build while the editor is open
        status = foreground([*tree.argv, project.settings.menu], env=make.pins(EPOCH))
    if status:
        raise PiggyError(
            f"'make {project.settings.menu}' ended with status {status}",
            "it needs a terminal of at least 80x19 and the headers of ncurses (Qt for xconfig)",
        )
    new = dotconfig.read_config(live)
    changed = dotconfig.differences(old, new)
    if not changed:
        terminal.line("unchanged", "the configuration is as it was")
        return
    edited = tree.full.with_name(tree.full.name + ".edited")
    copy_whole(live, edited)  # so that an error below does not lose the choices
    configure.put(tree.full, live)
    try:
        lines = keep(job, tree, new)
    except PiggyError as error:
        raise PiggyError(
            error.message, f"{error.hint}\n  what you chose is kept in {edited}"
        ) from error
    edited.unlink()
    for symbol in changed:
        terminal.line(
            "changed", f"CONFIG_{symbol}: {old.get(symbol, 'n')} -> {new.get(symbol, 'n')}"
        )
    terminal.line(
        "kept",
        (
            f"{len(lines)} lines in {tree.own}"
            if lines
            else f"all as the fragments say, without {tree.own}"
        ),
    )


def keep(job: Job, tree: configure.Kconfig, wanted: Mapping[str, str]) -> list[str]:
    """Write the user's own fragment so that all fragments together give a configuration.

    Args:
        job: The task's job.
        tree: The tree with its fragments.
        wanted: The configuration: symbol to value.

    Returns:
        The fragment's lines.
    """
    given = {
        symbol: request.value
        for symbol, request in fragments.merge(tree.paths, tree.optional).requests.items()
    }
    known = configure.model(tree)

    def config_from(text: str) -> dict[str, str]:
        return dotconfig.read_config(
            configure.solve(job, tree, symbols.layered(given, dotconfig.parse_config(text)))
        )

    lines = minimal.proved(
        minimal.choices(config_from(""), wanted, known, given), wanted, config_from, known
    )
    if lines:
        write_whole(
            tree.own,
            f"# Chosen in {job.project.settings.menu}; later than every other fragment, so it"
            " wins.\n" + "\n".join(lines) + "\n",
        )
    else:
        tree.own.unlink(missing_ok=True)
    return lines


def smallest(job: Job, tree: configure.Kconfig) -> str:
    """Return the smallest fragment that gives the current configuration over the same base."""
    configure.fresh(tree)
    under = (
        dotconfig.read_config(configure.solve(job, tree, {})) if tree.base != "allnoconfig" else {}
    )
    return minimal.smallest(
        dotconfig.read_config(tree.full),
        configure.model(tree),
        lambda text: dotconfig.read_config(
            configure.solve(job, tree, dotconfig.parse_config(text))
        ),
        under,
    )
