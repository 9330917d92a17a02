"""The provider `buildroot`: gcc, binutils, and uClibc-ng or musl, built from source by Buildroot.

    images/buildroot.config, here/buildroot.json, dl/* -> toolchain -> build/toolchains/ID/host

ID is a hash of the configuration, of the recipes and patches, of the override file and its trees,
and of the headers' tarball. The same inputs are never built twice. A changed input gets another ID,
and with it a fresh build in a folder of its own. A build that was killed goes on from Buildroot's
own stamps.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

from tasks.buildroot import config, progress, tree
from tasks.buildroot.progress import Timeline
from tasks.buildroot.tree import Facts
from tasks.config.pins import Source
from tasks.config.project import Project
from tasks.fetch import unpack
from tasks.graph.task import Job
from tasks.system import restart, terminal
from tasks.system.errors import PiggyError
from tasks.toolchains import compiler, path, record, sdk
from tasks.toolchains.folder import SEAL, clear, intact, key_files, locked, seal

NAME = "buildroot"
BOOT = "piggyback.boot"  # during which run of the host a folder is built in


def check(project: Project) -> None:
    """Check that the machine has a Buildroot configuration, and that files named by settings exist.

    Raises:
        PiggyError: The machine has none, or a file is missing.
    """
    fragment_paths(project)
    for name in ("buildroot_override", "buildroot_headers"):
        named = getattr(project.settings, name)
        if named and not (project.top / Path(named).expanduser()).is_file():
            raise PiggyError(f"{project.origins[name]}: there is no file {named}")


def fragment_paths(project: Project) -> list[Path]:
    """Return the configuration fragments in order.

    Two are not among them: the generated requests for kernel headers, and the user's own fragment.

    Raises:
        PiggyError: The machine's file names no fragments, or a fragment of the settings is missing.
    """
    folder = Path("configs") / "buildroot"
    if not project.machine.toolchain.buildroot:
        raise PiggyError(
            f"no Buildroot configuration for the machine '{project.settings.machine}'",
            '[toolchain] buildroot = ["FRAGMENT"] in its file names fragments of configs/buildroot',
        )
    libc = "musl" if project.settings.libc == "musl" else "uclibc"
    own = ["ccache"] if project.settings.buildroot_ccache else []
    names = ["toolchain", libc, *project.machine.toolchain.buildroot, *own]
    listed = map(str.strip, project.settings.buildroot_fragments.split(","))
    extra = [Path(name).expanduser() for name in listed if name]
    for fragment in extra:
        if not (project.top / fragment).is_file():
            raise PiggyError(
                f"{project.origins['buildroot_fragments']}: there is no Buildroot fragment"
                f" {fragment}"
            )
    return [*(folder / f"{name}.config" for name in names), *extra]


def doc(project: Project) -> str:
    """Return the line for `doit list`."""
    return f"cross compiler built from source by Buildroot, with {libc(project)}, probed"


def libc(project: Project) -> str:
    """Return the name of the libc that the settings select."""
    return "musl" if project.settings.libc == "musl" else "uClibc-ng"


def sources(project: Project) -> list[Source]:
    """Return the pin of Buildroot itself; its packages' sources are fetched by Buildroot."""
    return [] if project.settings.buildroot_src else [project.source(NAME)]


def needs(project: Project) -> dict[str, Any]:
    """Return what the task `toolchain` depends on, as arguments for `task`."""
    solved = project.layout.images / "buildroot.config"
    return {
        "files": [
            solved,
            project.layout.buildroot_facts,
            project.layout.here / "buildroot.fetched",
            *path.kernel_files(project),
        ],
        "trees": {"override": lambda: override_states(project)},
        "tools": ["make", "gcc", "g++"],
        "settings": {"arch": project.machine.arch, "build": os.path.abspath(project.layout.build)},
    }


def read_facts(project: Project) -> Facts:
    """Read the facts that `buildroot_config` recorded.

    Raises:
        PiggyError: The record is unreadable.
        FileNotFoundError: There is no record.
    """
    return record.decode(project.layout.buildroot_facts, Facts)


def override_states(project: Project) -> dict[str, str]:
    """Return the state of each folder in the override file: Buildroot itself does not watch them.

    Returns:
        A digest by folder.
    """
    if not project.layout.buildroot_facts.exists():
        return {}
    return {
        folder: tree.folder_state(Path(folder))
        for folder in sorted(set(read_facts(project).overrides.values()))
    }


def source_files(project: Project) -> list[Path]:
    """Return the file that stands for Buildroot's tree as an input of tasks.

    It is the unpacked archive's stamp, or the tarball or Makefile that the user named.
    """
    own = project.settings.buildroot_src
    if not own:
        return [unpack.stamp(project.layout.build, NAME)]
    top = Path(own).expanduser()
    return [top if sdk.is_tarball(own) else top / "Makefile"]


def source_name(project: Project) -> str:
    """Return what the user calls the tree: the setting buildroot_src, or the pin's name."""
    return project.settings.buildroot_src or NAME


def source(project: Project) -> Path:
    """Return Buildroot's tree, unpacked if need be.

    It is the pinned release, a tarball of the user's, or a tree of the user's, to which nothing is
    written.

    Raises:
        PiggyError: It is no Buildroot tree, it was configured in place, or a path has a character
            that Buildroot's makefiles, which quote nothing, can't handle.
    """
    own = project.settings.buildroot_src
    top = (
        Path(own).expanduser().absolute()
        if own
        else (project.layout.build / "src" / NAME).absolute()
    )
    if own and sdk.is_tarball(own):
        from tasks.system import files

        top = unpack.unpack(
            top, files.sha256_of(top), (project.layout.build / "src").absolute(), "buildroot-own"
        ).absolute()
    if not (top / "package" / "Makefile.in").is_file():
        raise PiggyError(
            f"{project.origins['buildroot_src']}: {own or top} is no Buildroot tree",
            "'buildroot_src=' names a release's tarball or the top folder of a tree",
        )
    for folder in (top, project.layout.dl.absolute(), project.layout.build.absolute()):
        if re.search(r"[\s:@]", str(folder)):
            raise PiggyError(
                f"Buildroot can't work in '{folder}': there is a space, a colon or an @ in it",
                "move it, or choose another with 'buildroot_src=', 'dl=' or 'build='",
            )
    if (top / ".config").exists():
        raise PiggyError(
            f"{top} was configured in place, and such a tree can't be built with O=",
            f"move {top}/.config away",
        )
    return top


def variables(project: Project, *, offline: bool = False) -> dict[str, str]:
    """Return the make variables that tell Buildroot about dl/, jobs, sites and overrides.

    Args:
        project: The project.
        offline: Whether Buildroot must not contact any site.
    """
    settings = project.settings
    values = {"BR2_DL_DIR": str(project.layout.dl.absolute()), "BR2_JLEVEL": str(project.jobs)}
    site = settings.buildroot_site or settings.mirror
    if settings.buildroot_override:
        values["BR2_PACKAGE_OVERRIDE_FILE"] = str(
            Path(settings.buildroot_override).expanduser().absolute()
        )
    if offline:
        return {**values, "BR2_PRIMARY_SITE": tree.NOWHERE, "BR2_PRIMARY_SITE_ONLY": "y"}
    if site:
        values["BR2_PRIMARY_SITE"] = (
            site if "://" in site else f"file://{Path(site).expanduser().absolute()}"
        )
    if settings.buildroot_site_only:
        values["BR2_PRIMARY_SITE_ONLY"] = "y"
    return values


def series_of(tarball: Path) -> tuple[int, int]:
    """Return the series of a kernel tarball, such as (6, 1), from its top Makefile.

    Args:
        tarball: The tarball.

    Raises:
        PiggyError: It has no such Makefile.
    """
    from tasks.fetch import tarstream

    with tarstream.members(tarball) as members:
        for member, data in members:
            if member.kind == "file" and re.fullmatch(r"(\./)?[^/]+/Makefile", member.name):
                text = data.read(1 << 20).decode(errors="replace")
                numbers = re.findall(
                    r"^(?:VERSION|PATCHLEVEL)\s*=\s*(\d{1,9})\s*$", text, re.MULTILINE | re.ASCII
                )
                if len(numbers) >= 2:
                    return int(numbers[0]), int(numbers[1])
                break
    raise PiggyError(f"{tarball} is no tarball of a kernel: it has no top Makefile with a VERSION")


def provide_headers(project: Project, tarball: Path | None) -> Path | None:
    """Copy the tarball of the kernel headers to dl/linux, where Buildroot looks before any site.

    Args:
        project: The project.
        tarball: The user's tarball; None for none.

    Returns:
        The copy's path, or None.
    """
    if not tarball:
        return None
    target = project.layout.dl.absolute() / "linux" / tarball.name
    if (
        not target.exists()
        or target.stat().st_size != tarball.stat().st_size
        or project.stamps.digest(target) != project.stamps.digest(tarball)
    ):
        from tasks.system.files import copy_whole

        copy_whole(tarball, target)
    return target


def identity(project: Project, facts: Facts) -> str:
    """Return the toolchain's ID: a hash of everything that decides the result.

    Inputs count by their content, wherever they lie; only the override file names trees by path.
    The path of build/toolchains is part of the ID, since the tools hold that path.

    Args:
        project: The project.
        facts: The facts of the configured tree.
    """
    values = config.read((project.layout.images / "buildroot.config").read_text())
    parts = [
        facts.version,
        config.identity(values),
        facts.recipes,
        os.path.abspath(project.layout.toolchains),
    ]
    if project.settings.buildroot_override:
        parts.append(Path(project.settings.buildroot_override).expanduser().read_text())
    # Each folder is read once: that of gcc stands in for three packages.
    trees = {folder: tree.folder_digest(Path(folder)) for folder in set(facts.overrides.values())}
    parts += [f"{name} {trees[folder]}" for name, folder in sorted(facts.overrides.items())]
    # Files and folders that the configuration names: patches, uClibc-ng's configuration, ...
    for symbol, value in sorted(values.items()):
        named = Path(value.strip('"'))
        location = value.strip('"').removeprefix("file://")
        if symbol == "BR2_KERNEL_HEADERS_CUSTOM_TARBALL_LOCATION" and Path(location).is_file():
            parts.append(f"headers {project.stamps.digest(location)}")
        elif symbol not in config.PLACES and value.startswith('"/') and named.exists():
            parts.append(f"{symbol} {tree.folder_digest(named)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def build(job: Job) -> dict[str, list[str]]:
    """Build the toolchain unless it is there and intact, and probe it.

    Returns:
        What the task learned: the files that it found and made.

    Raises:
        PiggyError: An override folder is missing, the build fails, or the probe refuses the result.
    """
    project = job.project
    facts = read_facts(project)
    for package, override in facts.overrides.items():
        if not Path(override).is_dir():
            raise PiggyError(
                f"the override file names {override} for {package}, and there is no such folder"
            )
    ident = identity(project, facts)
    folder = (project.layout.toolchains / ident).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not intact(folder):
            # A sealed toolchain that was spoilt can't be mended: its build folders are gone.
            if (folder / SEAL).exists():
                clear(folder)
            make(job, facts, folder)
    prefix = compiler.prefix_in(folder / "host")
    found = path.describe(project, prefix, key_files(folder))
    return record.finish(
        job,
        record.Found(
            ident, prefix, found.version, found.parts, cc=found.cc, user=ident, made=found.made
        ),
    )


def make(job: Job, facts: Facts, folder: Path) -> None:
    """Build in a toolchain's folder, from where an earlier build was cut off, and seal the result.

    The folders that it was built in, some 6 GB, are removed then.

    Args:
        job: The run of the task `toolchain`.
        facts: The facts of the configured tree.
        folder: The toolchain's folder, which is also O=.

    Raises:
        CommandError: The build fails.
    """
    project = job.project
    top, log = source(project), folder / progress.LOG
    values = variables(project, offline=True)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(project.layout.images / "buildroot.config", folder / ".config")
    timeline = Timeline(log)
    timeline.read()
    half = timeline.half_made()
    if restart.happened(folder / BOOT):
        half += [one for one in progress.late(folder / "build", facts.packages) if one not in half]
    if timeline.ended:
        terminal.line(
            "resume",
            f"{len(timeline.done())} of {len(facts.packages)} packages are made already"
            + (f"; cleaned first: {', '.join(half)}" if half else ""),
        )
    if half:
        tree.make(
            top, folder, [f"{package}-dirclean" for package in half], log=job.log, variables=values
        )
        for package in half:
            timeline.open.pop(package, None)
    restart.remember(folder / BOOT)
    with progress.displayed("buildroot", timeline, facts.packages) as on_line:
        tree.make(
            top, folder, ["all"], log=job.log, variables=values, on_line=on_line, jobs=project.jobs
        )
    tree.make(top, folder, ["prepare-sdk"], log=job.log, variables=values)
    prefix = compiler.prefix_in(folder / "host")
    parts = compiler.parts_inside(prefix, folder)
    for name in ("images", "target"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for left in (folder / "build").iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
    seal(folder, parts)
