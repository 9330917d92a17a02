"""Buildroot, for the toolchain alone: its configuration, its sources, and an SDK tarball.

configs/buildroot/*.config (toolchain, libc, processor) -+
kernel headers that match or precede the kernel ---------+
fragments and override file of the user's ---------------+-> buildroot_config
_unpack:buildroot, or buildroot_src= --------------------+        |
                                                                  v
                        images/buildroot.config, buildroot.json (what it says of itself)
                                                                  v
                          fetch:buildroot-sources -> dl/PACKAGE/FILE (make source)
                                                                  v
                                  toolchain -> build/toolchains/ID/host -> toolchain_export
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tasks.buildroot import config as brconfig
from tasks.buildroot import provider, tree
from tasks.config.project import Project
from tasks.fetch import unpack
from tasks.graph.task import Job, TaskDict, task
from tasks.kconfig import fragments
from tasks.system import disk, terminal
from tasks.system.errors import PiggyError
from tasks.system.files import copy_whole, write_whole
from tasks.system.process import CommandError, foreground
from tasks.toolchains import record, sdk

TOOLS = ["make", "gcc", "g++"]


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield the tasks of the provider `buildroot`, which go before the task `toolchain`."""
    settings = project.settings
    paths = [
        *provider.fragment_paths(project),
        *filter(os.path.lexists, [project.layout.buildroot_fragment]),
    ]
    given = [
        Path(name).expanduser()
        for name in (settings.buildroot_override, settings.buildroot_headers)
        if name
    ]
    kernel = (
        project.layout.kernel_src / "Makefile"
        if settings.kernel_src
        else unpack.stamp(project.layout.build, project.kernel_pin.name)
    )
    facts = project.layout.buildroot_facts
    yield task(
        project,
        "buildroot_config",
        "Buildroot's configuration from fragments, each symbol checked",
        configure,
        files=[*paths, *given, kernel, *provider.source_files(project)],
        targets=[project.layout.buildroot_config, facts],
        tools=TOOLS,
        settings={"fragments": " ".join(map(str, paths)), "tree": provider.source_place(project)},
    )
    fetched = project.layout.here / "buildroot.fetched"
    yield {
        **task(
            project,
            "fetch",
            "have Buildroot get and verify the sources of its packages (make source)",
            fetch,
            files=[project.layout.buildroot_config, facts],
            targets=[fetched],
            settings={"dl": os.path.abspath(project.layout.dl)},
        ),
        "name": "buildroot-sources",
        "clean": [],
    }
    yield task(
        project,
        "buildroot_menuconfig",
        "edit Buildroot's configuration; what you choose is kept as a fragment",
        menuconfig,
        files=[project.layout.buildroot_config],
        always=True,
        quiet=True,
    )
    yield task(
        project,
        "buildroot_savedefconfig",
        "write the smallest defconfig that gives Buildroot's configuration",
        savedefconfig,
        files=[project.layout.buildroot_config],
        always=True,
        quiet=True,
    )
    yield task(
        project,
        "toolchain_export",
        "pack Buildroot's toolchain as a relocatable SDK tarball",
        export,
        files=record.records(project),
        always=True,
        quiet=True,
    )


def configure(job: Job) -> dict[str, list[str]]:
    """Configure by contract, and ask the tree what it will build of what.

    Raises:
        PiggyError: A request does not take; with the Kconfig entry that says why.
    """
    project = job.project
    source = provider.source(project)
    asked = requests(project, source, own=True)
    values = solve(job, source, asked)
    facts = tree.ask(source, project.layout.buildroot_obj, job.log, provider.variables(project))
    missed = brconfig.unmet(asked, values)
    for one in missed:
        if one.optional:
            terminal.line(
                "optional",
                f"{one.where}: {one.line}: not in Buildroot {facts.version}, or overridden",
            )
    fatal = [one for one in missed if not one.optional]
    if fatal:
        raise PiggyError(
            f"{len(fatal)} of {len(asked)} symbols requested of Buildroot {facts.version} did not"
            " take",
            "\n" + brconfig.explain(fatal, values, source, facts.version),
        )
    copy_whole(project.layout.buildroot_obj / ".config", project.layout.buildroot_config)
    recipes = tree.recipe_files(source, facts)
    facts = msgspec.structs.replace(facts, recipes=tree.tree_digest(source, recipes))
    write_whole(project.layout.buildroot_facts, msgspec.json.format(msgspec.json.encode(facts)))
    return {"discovered": [str(path) for path in recipes]}


def requests(project: Project, source: Path, *, own: bool) -> dict[str, brconfig.Ask]:
    """Return what the fragments ask for, with the headers that go with the kernel.

    A fragment may name other headers.

    Args:
        project: The project.
        source: The tree.
        own: With the user's own fragment.
    """
    paths = [
        *provider.fragment_paths(project),
        *filter(os.path.lexists, [project.layout.buildroot_fragment] if own else []),
    ]
    parts = [brconfig.parse(fragments.read(path), str(path)) for path in paths]
    named = any(
        one.symbol.startswith("BR2_KERNEL_HEADERS_") and one.value != "n"
        for part in parts
        for one in part
    )
    headers = project.settings.buildroot_headers
    tarball = Path(headers).expanduser().absolute() if headers else None
    if not named:
        series = provider.series_of(tarball) if tarball else None
        parts.insert(
            0,
            brconfig.headers(
                source,
                record.kernel_version(project.layout.kernel_src),
                provider.placed(project, tarball),
                series,
            ),
        )
    kept, dropped = brconfig.without_legacy(brconfig.merge(parts), source)
    for one in dropped:
        terminal.line("optional", f"{one.where}: {one.line}: this release has it no more")
    return kept


def solve(job: Job, source: Path, asked: dict[str, brconfig.Ask]) -> dict[str, str]:
    """Let Buildroot complete the requests to a configuration, in our O= folder.

    Returns:
        The symbols of the configuration.
    """
    folder = job.project.layout.buildroot_obj
    folder.mkdir(parents=True, exist_ok=True)
    request = folder / "piggyback_defconfig"
    write_whole(request, "".join(f"{one.line}\n" for one in asked.values()))
    (folder / ".config").unlink(missing_ok=True)
    tree.make(
        source,
        folder,
        ["defconfig"],
        log=job.log,
        variables={"BR2_DEFCONFIG": str(request.absolute())},
    )
    return brconfig.read((folder / ".config").read_text())


def fetch(job: Job) -> dict[str, list[str]]:
    """Have all sources in dl/.

    With `offline`, or when all are there, no site is asked. Buildroot checks its hashes.

    Raises:
        PiggyError: A file is missing; it is named, with where to put it.
    """
    project = job.project
    facts, dl = provider.read_facts(project), project.layout.dl.absolute()
    there = [dl / one.path for one in facts.downloads]
    before = tree.missing(facts, dl)
    closed = project.settings.offline or not before
    if before and project.settings.offline:
        raise missing(before, dl)
    if before:
        terminal.line("fetch", f"{len(before)} files for Buildroot, the first is {before[0].path}")
    for stamp in project.layout.buildroot_obj.glob("build/*/.stamp_downloaded"):
        stamp.unlink()  # by which Buildroot would take for there what is no longer in dl/
    try:
        tree.make(
            provider.source(project),
            project.layout.buildroot_obj,
            ["source"],
            log=job.log,
            variables=provider.variables(project, closed=closed),
        )
    except CommandError as error:
        after = tree.missing(facts, dl)
        if after:
            raise missing(after, dl, job.log) from None
        raise error
    lost = tree.missing(facts, dl)
    if lost:  # a hash was wrong: Buildroot removes such a file
        raise missing(lost, dl, job.log)
    write_whole(
        project.layout.here / "buildroot.fetched",
        "".join(f"{disk.sha256_of(path)}  {path.relative_to(dl)}\n" for path in sorted(set(there))),
    )
    return {"made": sorted({str(path) for path in there})}


def missing(files: list[tree.Download], dl: Path, log: Path | None = None) -> PiggyError:
    """One line for the first file that is missing, and the others in the hint."""
    first = files[0]
    others = "".join(f"\n  also {dl / one.path} ({one.package})" for one in files[1:])
    return PiggyError(
        f"{Path(first.path).name} is missing, and Buildroot's package {first.package} needs it: "
        f"put it at {dl / first.path}",
        "'doit offline=no fetch' gets it where there is a network; "
        "'buildroot_site=' names another place, 'buildroot_override=' takes a source tree instead"
        + others
        + (f"\n  log: {log}" if log else ""),
    )


def menuconfig(job: Job) -> None:
    """Edit the configuration in force, and keep what differs from the fragments.

    It is kept if it can be proved to give the same.
    """
    project = job.project
    source, folder = provider.source(project), project.layout.buildroot_obj
    copy_whole(project.layout.buildroot_config, folder / ".config")
    with project.lock.released():  # others may build while somebody sits in the editor
        status = foreground(
            tree.argv(source, folder, [project.settings.menu], {}), env=tree.environment()
        )
    if status:
        raise PiggyError(
            f"'make {project.settings.menu}' ended with status {status}",
            "it needs the headers of ncurses",
        )
    keep(job, source)


def keep(job: Job, source: Path) -> None:
    """Write the user's own fragment such that all fragments together give what the editor saved."""
    project = job.project
    folder, edited = (
        project.layout.buildroot_obj,
        project.layout.buildroot_config.with_name("buildroot.config.edited"),
    )
    copy_whole(folder / ".config", edited)  # whatever happens now, what was chosen is not lost
    wanted = brconfig.read(edited.read_text())
    small = set(brconfig.read(small_defconfig(job, source)))
    given = solve(job, source, requests(project, source, own=False))
    small |= set(brconfig.read(small_defconfig(job, source)))
    lines = brconfig.chosen(wanted, given, small)
    asked = requests(project, source, own=False)
    asked = brconfig.merge([list(asked.values()), brconfig.parse("\n".join(lines), "menuconfig")])
    if brconfig.identity(solve(job, source, asked)) != brconfig.identity(wanted):
        raise PiggyError(
            "the fragments and what was chosen do not give what the editor saved",
            f"it is kept in {edited}",
        )
    own = project.layout.buildroot_fragment
    if lines:
        write_whole(
            own,
            "# Chosen in the editor; later than every other fragment, so it wins.\n"
            + "\n".join(lines)
            + "\n",
        )
        terminal.line("kept", f"{len(lines)} lines in {own}")
    else:
        own.unlink(missing_ok=True)
        terminal.line("unchanged", "all as the fragments say")
    edited.unlink()


def small_defconfig(job: Job, source: Path) -> str:
    """Buildroot's own minimal defconfig of what is configured now."""
    target = job.project.layout.buildroot_obj.absolute() / "small_defconfig"
    tree.make(
        source,
        job.project.layout.buildroot_obj,
        ["savedefconfig"],
        log=job.log,
        variables={"BR2_DEFCONFIG": str(target)},
    )
    return target.read_text()


def savedefconfig(job: Job) -> None:
    """Write images/buildroot_defconfig."""
    project = job.project
    copy_whole(project.layout.buildroot_config, project.layout.buildroot_obj / ".config")
    text = small_defconfig(job, provider.source(project))
    write_whole(project.layout.images / "buildroot_defconfig", text)
    terminal.line(
        "savedefconfig",
        f"{project.layout.images / 'buildroot_defconfig'} ({len(text.splitlines())} lines)",
    )


def export(job: Job) -> None:
    """Pack host/ of the toolchain in force, which was prepared to be moved.

    Another machine names the tarball: toolchain=path toolchain_prefix=FILE.
    """
    project = job.project
    tool, facts = record.read(project), provider.read_facts(project)
    host = Path(tool.prefix).parents[1]
    version = re.sub(r"[^0-9A-Za-z.-]", "_", facts.version)
    target = project.layout.images / f"{facts.target}_sdk-{version}-{host.parent.name}.tar.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    sdk.pack(host, target.name.removesuffix(".tar.gz"), target, job.log)
    terminal.line("toolchain_export", f"{target} ({terminal.size(target.stat().st_size)})")
    terminal.line("", f"elsewhere: doit toolchain=path toolchain_prefix={target.name}")
