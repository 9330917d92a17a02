"""Buildroot, used for the toolchain alone: its configuration, its sources, and an SDK tarball.

configs/buildroot/*.config (toolchain, libc, processor) -+
kernel headers not newer than the kernel ----------------+
fragments and override file of the user's ---------------+-> buildroot_config
_unpack:buildroot, or buildroot_src= --------------------+        |
                                                                  v
                   images/buildroot.config, here/buildroot.json (facts of the configured tree)
                                                                  |
                                                                  v
                          fetch:buildroot-sources -> dl/PACKAGE/FILE (make source)
                                                                  |
                                                                  v
                                 toolchain -> build/toolchains/ID/host -> toolchain_export
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tasks.buildroot import config, provider, tree
from tasks.config.project import Project
from tasks.fetch import unpack
from tasks.graph.task import Command, Job, Makes, Needs, TaskDict, task
from tasks.kbuild import configure as configuration
from tasks.kconfig import fragments
from tasks.system import files, terminal
from tasks.system.errors import PiggyError
from tasks.system.files import copy_whole, write_whole
from tasks.system.process import CommandError, foreground
from tasks.toolchains import record, sdk

TOOLS = ["make", "gcc", "g++"]


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield the tasks of the provider `buildroot`, which precede the task `toolchain`."""
    settings = project.settings
    named = [
        Path(name).expanduser()
        for name in (settings.buildroot_override, settings.buildroot_headers)
        if name
    ]
    kernel = (
        project.layout.kernel_src / "Makefile"
        if settings.kernel_src
        else unpack.standing_for(project.layout.kernel_src, "")[0]
    )
    facts = project.layout.buildroot_facts
    yield from configuration.tasks(
        project,
        "Buildroot",
        {"config": configure, "menuconfig": menuconfig, "savedefconfig": savedefconfig},
        paths=fragments.present(
            provider.fragment_paths(project), project.layout.buildroot_fragment
        ),
        inputs=Needs(
            files=[*named, kernel, *provider.source_files(project)],
            settings={"tree": provider.source_name(project)},
            tools=TOOLS,
        ),
        outputs=Makes(targets=[project.layout.buildroot_config, facts]),
        small="defconfig",
    )
    fetched = project.layout.here / "buildroot.fetched"
    yield {
        **task(
            project,
            "fetch",
            "have Buildroot get and verify the sources of its packages (make source)",
            fetch,
            inputs=Needs(
                files=[project.layout.buildroot_config, facts],
                settings={"dl": os.path.abspath(project.layout.dl)},
            ),
            outputs=Makes(targets=[fetched]),
        ),
        "name": "buildroot-sources",
        "clean": [],
    }
    yield task(
        project,
        "toolchain_export",
        "pack Buildroot's toolchain as a relocatable SDK tarball",
        export,
        inputs=Needs(files=record.records(project)),
        command=Command(),
    )


def configure(job: Job) -> dict[str, list[str]]:
    """Configure by contract, and record the facts of the configured tree.

    Returns:
        What the task learned: the files of the tree that decide the toolchain.

    Raises:
        PiggyError: A request did not take; the message has the symbol's Kconfig entry.
    """
    project = job.project
    source = provider.source(project)
    asked = requests(project, source, own=True)
    values = solve(job, source, asked)
    facts = tree.query(source, project.layout.buildroot_obj, job.log, provider.variables(project))
    missed = config.unmet(asked, values)
    for request in missed:
        if request.optional:
            terminal.line(
                "optional",
                f"{request.where}: {request.line}: not in Buildroot {facts.version}, or overridden",
            )
    fatal = [request for request in missed if not request.optional]
    if fatal:
        raise PiggyError(
            f"{len(fatal)} of {len(asked)} symbols requested of Buildroot {facts.version} did not"
            " take",
            "\n" + config.explain(fatal, values, source, facts.version),
        )
    copy_whole(project.layout.buildroot_obj / ".config", project.layout.buildroot_config)
    recipes = tree.recipe_files(source, facts)
    facts = msgspec.structs.replace(facts, recipes=tree.tree_digest(source, recipes))
    write_whole(project.layout.buildroot_facts, msgspec.json.format(msgspec.json.encode(facts)))
    return {"discovered": [str(path) for path in recipes]}


def requests(project: Project, source: Path, *, own: bool) -> dict[str, config.Request]:
    """Return the requests of all fragments, and for headers that go with the kernel.

    The latter are left out where a fragment names headers.

    Args:
        project: The project.
        source: Buildroot's tree.
        own: Whether the user's own fragment is included.
    """
    paths: Sequence[Path] = provider.fragment_paths(project)
    if own:
        paths = fragments.present(paths, project.layout.buildroot_fragment)
    parts = [config.parse(fragments.read(path), str(path)) for path in paths]
    headers_named = any(
        request.symbol.startswith("BR2_KERNEL_HEADERS_") and request.value != "n"
        for part in parts
        for request in part
    )
    headers = project.settings.buildroot_headers
    tarball = Path(headers).expanduser().absolute() if headers else None
    if not headers_named:
        series = provider.series_of(tarball) if tarball else None
        parts.insert(
            0,
            config.headers(
                source,
                record.kernel_version(project.layout.kernel_src),
                provider.provide_headers(project, tarball),
                series,
            ),
        )
    kept, dropped = config.without_legacy(config.merge(parts), source)
    for request in dropped:
        terminal.line("optional", f"{request.where}: {request.line}: this release has it no more")
    return kept


def solve(job: Job, source: Path, asked: dict[str, config.Request]) -> dict[str, str]:
    """Let Buildroot complete the requests to a configuration, in O=.

    Args:
        job: The run of the task.
        source: Buildroot's tree.
        asked: The requests by symbol.

    Returns:
        The value of each symbol.
    """
    folder = job.project.layout.buildroot_obj
    folder.mkdir(parents=True, exist_ok=True)
    defconfig = folder / "piggyback_defconfig"
    write_whole(defconfig, "".join(f"{request.line}\n" for request in asked.values()))
    (folder / ".config").unlink(missing_ok=True)
    tree.make(
        source,
        folder,
        ["defconfig"],
        log=job.log,
        variables={"BR2_DEFCONFIG": str(defconfig.absolute())},
    )
    return config.read((folder / ".config").read_text())


def fetch(job: Job) -> dict[str, list[str]]:
    """Have Buildroot download and verify the sources of all packages (make source).

    With `offline`, or when all files are there, no site is contacted. Buildroot checks its hashes
    in any case.

    Returns:
        What the task made: the files in dl/.

    Raises:
        PiggyError: A file is missing; the message says where to put it.
    """
    project = job.project
    facts, dl = provider.read_facts(project), project.layout.dl.absolute()
    paths = sorted({dl / download.path for download in facts.downloads})
    before = tree.missing(facts, dl)
    offline = project.settings.offline or not before
    if before and project.settings.offline:
        raise missing_error(before, dl)
    if before:
        terminal.line("fetch", f"{len(before)} files for Buildroot, the first is {before[0].path}")
    # With its stamp in place Buildroot would not look whether a file is still in dl/.
    for stamp in project.layout.buildroot_obj.glob("build/*/.stamp_downloaded"):
        stamp.unlink()
    try:
        tree.make(
            provider.source(project),
            project.layout.buildroot_obj,
            ["source"],
            log=job.log,
            variables=provider.variables(project, offline=offline),
        )
    except CommandError as error:
        after = tree.missing(facts, dl)
        if after:
            raise missing_error(after, dl, job.log) from None
        raise error
    after = tree.missing(facts, dl)
    if after:  # Buildroot removes a file whose hash is wrong
        raise missing_error(after, dl, job.log)
    write_whole(
        project.layout.here / "buildroot.fetched",
        "".join(f"{files.sha256_of(path)}  {path.relative_to(dl)}\n" for path in paths),
    )
    return {"made": [str(path) for path in paths]}


def missing_error(files: list[tree.Download], dl: Path, log: Path | None = None) -> PiggyError:
    """Return the error for missing downloads: the first in the message, the others in the hint.

    Args:
        files: The missing downloads.
        dl: The download folder.
        log: The log of the attempt, if there was one.
    """
    first = files[0]
    others = "".join(f"\n  also {dl / other.path} ({other.package})" for other in files[1:])
    return PiggyError(
        f"{Path(first.path).name} is missing, and Buildroot's package {first.package} needs it: "
        f"put it at {dl / first.path}",
        "'doit offline=no fetch' gets it where there is a network; "
        "'buildroot_site=' names another place, 'buildroot_override=' takes a source tree instead"
        + others
        + (f"\n  log: {log}" if log else ""),
    )


def menuconfig(job: Job) -> None:
    """Open the editor on the configuration in force, and keep the choices as a fragment.

    Raises:
        PiggyError: The editor failed, or no fragment gives what it saved.
    """
    project = job.project
    source, folder = provider.source(project), project.layout.buildroot_obj
    copy_whole(project.layout.buildroot_config, folder / ".config")
    with project.lock.released():  # other runs may build while the editor is open
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
    """Write the user's own fragment: what the edited configuration adds to the other fragments.

    It is written only after Buildroot has made exactly the edited configuration of all fragments
    together.

    Args:
        job: The run of the task.
        source: Buildroot's tree.

    Raises:
        PiggyError: Buildroot makes another configuration of them.
    """
    project = job.project
    folder, edited = (
        project.layout.buildroot_obj,
        project.layout.buildroot_config.with_name("buildroot.config.edited"),
    )
    copy_whole(folder / ".config", edited)  # so that no error below loses the user's choices
    saved = config.read(edited.read_text())
    small = set(config.read(small_defconfig(job, source)))
    base = solve(job, source, requests(project, source, own=False))
    small |= set(config.read(small_defconfig(job, source)))
    lines = config.choices(saved, base, small)
    asked = requests(project, source, own=False)
    asked = config.merge([list(asked.values()), config.parse("\n".join(lines), "menuconfig")])
    if config.identity(solve(job, source, asked)) != config.identity(saved):
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
    """Return Buildroot's minimal defconfig of the configuration in O= (make savedefconfig).

    Args:
        job: The run of the task.
        source: Buildroot's tree.
    """
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
    """Write images/buildroot_defconfig, the minimal defconfig of the configuration in force."""
    project = job.project
    copy_whole(project.layout.buildroot_config, project.layout.buildroot_obj / ".config")
    text = small_defconfig(job, provider.source(project))
    write_whole(project.layout.images / "buildroot_defconfig", text)
    terminal.line(
        "savedefconfig",
        f"{project.layout.images / 'buildroot_defconfig'} ({len(text.splitlines())} lines)",
    )


def export(job: Job) -> None:
    """Pack the toolchain in force as a relocatable tarball in images/.

    On another machine the tarball is used by toolchain=path toolchain_prefix=FILE.
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
