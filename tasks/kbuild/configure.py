"""Configuration by contract, for every tree that is configured by Kconfig: the kernel, and busybox.

    base (allnoconfig, defconfig, ...) + fragments -> miniconfig -> make allnoconfig
      -> each request checked -> .config

What the user asks for is taken or is an error; nothing else is let in; and no .config of earlier is
ever the start.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tasks.config.project import EPOCH, Project
from tasks.graph.task import Command, Job, Kept, Makes, Needs, TaskDict, task
from tasks.kbuild import claim, conf, make, manifest, records
from tasks.kbuild.ask import Request
from tasks.kconfig import dotconfig, fragments, symbols
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.files import copy_whole, write_whole

BASE = "piggyback.base"  # the base's configuration, in the object folder


class Kconfig(msgspec.Struct, frozen=True):
    """A tree that Kconfig configures.

    what:       "kernel" or "busybox", for messages.
    source, obj: the tree and its O= folder.
    base:       a configuration target to start from; "allnoconfig" starts from nothing.
    paths:      fragments in order, without `own`.
    own:        the user's own fragment, written by the editor; last in the list when it exists.
    variables:  make variables.
    full, mini: where the configuration and the miniconfig are kept.
    top:        the top Kconfig file; generated: whether its parts are made in the object folder, as
        busybox's are.
    takes_miniconfig: whether its allnoconfig heeds KCONFIG_ALLCONFIG.
    tools:      a digest of the compiler and the binutils; what others made is made again.
    optional:   those of `paths` of which nothing need take.
    without_make: whether its own program may be run without make where that is possible (conf.py).
    """

    what: str
    source: Path
    obj: Path
    base: str
    paths: tuple[Path, ...]
    own: Path
    variables: Mapping[str, str]
    full: Path
    mini: Path
    top: str = "Kconfig"
    generated: bool = False
    takes_miniconfig: bool = True
    tools: str = ""
    optional: frozenset[Path] = frozenset()
    without_make: bool = False

    def asked(self) -> fragments.Merged:
        """Read all fragments. Raises PiggyError for what is wrong in them."""
        return fragments.merge(self.all_paths, self.optional)

    @property
    def all_paths(self) -> tuple[Path, ...]:
        """The fragments in order, with the user's own if there is one."""
        return fragments.present(self.paths, self.own)

    @property
    def argv(self) -> list[str]:
        """The make command, without a goal."""
        return [
            "make",
            "-C",
            os.fspath(self.source),
            f"O={self.obj.absolute()}",
            "--no-print-directory",
            *(f"{name}={value}" for name, value in self.variables.items()),
        ]


def by_contract(job: Job, tree: Kconfig) -> None:
    """Configure from the fragments, and put the result in force only if each request took."""
    fresh(tree)
    merged = tree.asked()
    draft = solve(job, tree, {symbol: request.value for symbol, request in merged.requests.items()})
    got = dotconfig.read_config(draft)
    missed = dotconfig.unmet(merged, got) + unknown(tree, merged, got)
    for one in missed:
        if one.request.optional:
            terminal.line("optional", one.text)
    fatal = [one for one in missed if not one.request.optional]
    if fatal:
        raise PiggyError(
            f"{len(fatal)} of {len(merged.requests)} symbols requested of {tree.what} did not take",
            "\n" + unmet_report(tree, fatal, merged, draft),
        )
    for note in merged.notes:
        terminal.line("note", note)
    put(draft, tree.obj / ".config")
    write_whole(tree.mini, fragments.miniconfig(merged))
    copy_whole(draft, tree.full)
    draft.unlink()


def unknown(
    tree: Kconfig, merged: fragments.Merged, got: Mapping[str, str]
) -> list[dotconfig.Unmet]:
    """Return the requests to have a symbol off that no Kconfig file of the tree defines.

    Kconfig says nothing of them (confdata.c, conf_read_simple: an unset symbol that is not found is
    passed over), so a misspelt one would leave on what was to be off. The files that Kconfig read
    last define nearly all; for others, a search of the whole tree takes some 0.3 s.
    """
    off = {
        name: one for name, one in merged.requests.items() if one.value == "n" and name not in got
    }
    if not off:
        return []
    from tasks.kconfig import reasons

    with contextlib.suppress(PiggyError, OSError):
        for path in records.kconfig_files(tree.obj, tree.source):
            for name in reasons.defined(path).intersection(off):
                del off[name]
            if not off:
                return []
    known = {
        name
        for root in (tree.source, *([tree.obj] if tree.generated else []))
        for name, files in reasons.definitions(root, off).items()
        if files
    }
    left = [one for name, one in off.items() if name not in known]
    everything = model(tree) if left else None  # a file that is called otherwise may define it
    return [
        dotconfig.Unmet(one, "")
        for one in left
        if not (everything and one.symbol in everything.syms and everything.syms[one.symbol].nodes)
    ]


def solve(job: Job, tree: Kconfig, requests: Mapping[str, str]) -> Path:
    """Let Kconfig complete the base and the requests to a configuration; return it as a draft.

    allnoconfig over a miniconfig takes nothing that was not asked for; merge_config.sh with
    olddefconfig would let defaults in. Source: Documentation/kbuild/kconfig.rst, KCONFIG_ALLCONFIG.
    A symbol stands in the miniconfig once: of two lines the kernel's conf takes the last, busybox's
    the first.

    Busybox's allnoconfig passes over KCONFIG_ALLCONFIG (its conf.c answers n a second time), so
    there oldconfig completes the base's .config; what comes into sight only by a request is then
    refused by asking for n, until nothing new appears.

    Args:
        job: The job.
        tree: The tree to configure.
        requests: Symbol to value.
    """
    live, draft, request = (
        tree.obj / name for name in (".config", "piggyback.config", "piggyback.mini")
    )
    kept = tree.obj / "piggyback.kept"
    if live.exists():
        os.replace(live, kept)
    under: dict[str, str] = {}
    if tree.base != "allnoconfig" or not tree.takes_miniconfig:
        run_goal(job, tree, tree.base)
        under = dotconfig.read_config(live)
        copy_whole(live, tree.obj / BASE)
    if tree.base == "allnoconfig":
        # Busybox's sets each string to nothing; those that requests bring into sight have defaults.
        under = {symbol: value for symbol, value in under.items() if value != '""'}
    given = symbols.layered(under, requests)
    if tree.takes_miniconfig:
        write_config(request, given)
        run_goal(job, tree, "allnoconfig", env={"KCONFIG_ALLCONFIG": str(request.absolute())})
    while not tree.takes_miniconfig:
        write_config(live, given)
        run_goal(job, tree, "oldconfig", answers="\n" * 10_000)  # to each question: its default
        surplus = {
            symbol
            for symbol, value in dotconfig.read_config(live).items()
            if value in "ym" and symbol not in given
        }
        if tree.base != "allnoconfig" or not surplus:
            break
        given.update(dict.fromkeys(surplus, "n"))
    os.replace(live, draft)
    if kept.exists():
        os.replace(kept, live)  # with its old time: make sees no work where nothing changed
    return draft


def write_config(path: Path, values: Mapping[str, str]) -> None:
    """Write values (symbol to value) as a .config file."""
    write_whole(path, "".join(fragments.config_line(*item) + "\n" for item in values.items()))


def run_goal(
    job: Job,
    tree: Kconfig,
    goal: str,
    env: Mapping[str, str] | None = None,
    answers: str | None = None,
) -> None:
    """Run one configuration target of the tree, with `answers` on its standard input."""
    manifest.purge_tools(tree.obj)
    pins, more, obj = make.pins(EPOCH), env or {}, tree.obj.absolute()
    request = Request(tree.argv, obj, goal, pins, more, job.project.jobs, job.log)
    if not tree.without_make or answers is not None or not conf.taken(request):
        make.run(
            tree.source,
            tree.obj,
            [goal],
            jobs=job.project.jobs,
            variables=tree.variables,
            env={**pins, **more},
            log=job.log,
            stdin=answers,
        )
    manifest.renew(tree.obj)


def put(draft: Path, live: Path) -> bool:
    """Copy a configuration in place unless it is there already; return whether it was another one.

    What make derives from it by comparing times (the kernel's auto.conf, busybox's autoconf.h) gets
    the oldest time there is, so that no clock can make it look newer. It must stay: Kconfig learns
    from the old auto.conf which symbols changed.
    """
    if not live.exists() or live.read_bytes() != draft.read_bytes():
        for derived in ("include/config/auto.conf", "include/autoconf.h"):
            with contextlib.suppress(FileNotFoundError):
                os.utime(live.parent / derived, (0, 0))
        copy_whole(draft, live)
        return True
    return False


def fresh(tree: Kconfig) -> None:
    """Claim the object folder for the tree; see claim.folder."""
    claim.folder(tree.source, tree.obj, tree.variables.get("ARCH", ""), tree.tools, tree.what)


def unmet_report(
    tree: Kconfig, fatal: list[dotconfig.Unmet], merged: fragments.Merged, draft: Path
) -> str:
    """Say why requests did not take, by the tree's own Kconfig files."""
    from tasks.kconfig.explain import explain, report

    under = dotconfig.read_config(tree.obj / BASE) if tree.base != "allnoconfig" else None
    return report(
        explain(
            fatal,
            merged,
            root=tree.source,
            config=draft,
            env=lambda: symbols.kbuild_environment(tree.argv),
            under=under,
            base="allnoconfig" if tree.takes_miniconfig or under is None else "",
            top=tree.top,
            generated=tree.obj if tree.generated else None,
        )
    )


def model(tree: Kconfig) -> Any:
    """Return kconfiglib's model of the tree; say so, and return None, where it can't read it."""
    try:
        return symbols.load(
            tree.source,
            symbols.kbuild_environment(tree.argv),
            top=tree.top,
            generated=tree.obj if tree.generated else None,
        )
    except PiggyError as error:
        terminal.line("note", error.message)
        return None


def model_aside(tree: Kconfig) -> Any:
    """Return kconfiglib's model of the tree, with nothing written to the object folder.

    The environment of the Kconfig files is the one that make told last, or is asked of make in a
    folder of its own, which takes some seconds.

    Raises:
        PiggyError: kconfiglib can't read the tree.
    """
    env = conf.environment(tree.obj)
    if not env:
        with tempfile.TemporaryDirectory(prefix="piggy-kconfig-") as folder:
            env = symbols.kbuild_environment(msgspec.structs.replace(tree, obj=Path(folder)).argv)
    return symbols.load(
        tree.source, env, top=tree.top, generated=tree.obj if tree.generated else None
    )


def tasks(
    project: Project,
    what: str,
    actions: Mapping[str, Callable[..., Any]],
    *,
    paths: Sequence[Path],
    inputs: Needs,
    outputs: Makes,
    store: Kept = Kept(when=False),  # noqa: B008
    optional: Collection[Path] = (),
    small: str = "fragment",
) -> Iterator[TaskDict]:
    """Yield the tasks of a tree that fragments configure: WHAT_config, and those of the editor.

    The latter are menuconfig and savedefconfig for the kernel, and WHAT_menuconfig and
    WHAT_savedefconfig for other trees.

    Args:
        project: The project.
        what: The tree: "kernel", "busybox" or "Buildroot".
        actions: By "config", "menuconfig" and "savedefconfig"; a tree may lack the last.
        paths: The fragments in order, with the user's own if there is one.
        inputs: What WHAT_config is made from besides the fragments.
        outputs: What it makes; the first target is the configuration.
        store: Whether and how the store has it.
        optional: The fragments whose requests may all fail.
        small: What savedefconfig writes the smallest of.
    """
    name = what.lower()
    yield task(
        project,
        f"{name}_config",
        f"{what} configuration from fragments, each symbol checked",
        actions["config"],
        inputs=msgspec.structs.replace(
            inputs,
            files=[*paths, *inputs.files],
            settings={
                "fragments": " ".join(f"{path}{'?' * (path in optional)}" for path in paths),
                **inputs.settings,
            },
        ),
        outputs=outputs,
        store=store,
    )
    docs = {
        "menuconfig": f"edit the {what} configuration; what you choose is kept as a fragment",
        "savedefconfig": f"write the smallest {small} that gives the {what} configuration",
    }
    for goal, doc in docs.items():
        if goal in actions:
            yield task(
                project,
                goal if what == "kernel" else f"{name}_{goal}",
                doc,
                actions[goal],
                inputs=Needs(files=outputs.targets[:1]),
                command=Command(),
            )
