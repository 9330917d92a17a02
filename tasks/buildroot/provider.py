"""A toolchain that Buildroot builds from source: gcc, binutils, and uClibc-ng or musl.

    images/buildroot.config, here/buildroot.json, dl/* -> toolchain -> build/toolchains/ID/host

ID is a hash of the configuration, of the recipes and patches, of the override file and its trees,
and of the headers' tarball: the same inputs are never built twice, and a change that Buildroot
could not apply to what is there starts afresh beside it. A build that was killed goes on at
Buildroot's own stamps.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

from tasks.buildroot import config as brconfig
from tasks.buildroot import progress
from tasks.buildroot import tree as brtree
from tasks.buildroot.progress import Timeline
from tasks.buildroot.tree import Facts
from tasks.config.pins import Source
from tasks.config.project import Project
from tasks.fetch import unpack
from tasks.graph.task import Job
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.toolchains import compiler, path, record, sdk
from tasks.toolchains import folder as home

NAME = "buildroot"


def check(project: Project) -> None:
    """Raise PiggyError for a machine without a Buildroot configuration, or for a missing file."""
    fragment_paths(project)
    for name in ("buildroot_override", "buildroot_headers"):
        named = getattr(project.settings, name)
        if named and not (project.top / Path(named).expanduser()).is_file():
            raise PiggyError(f"{project.origins[name]}: there is no file {named}")


def fragment_paths(project: Project) -> list[Path]:
    """The fragments in order, without the generated one for the headers and the user's own."""
    folder = Path("configs") / "buildroot"
    if not project.machine.toolchain.buildroot:
        raise PiggyError(
            f"no Buildroot configuration for the machine '{project.settings.machine}'",
            '[toolchain] buildroot = ["FRAGMENT"] in its file names fragments of configs/buildroot',
        )
    libc = "musl" if project.settings.libc == "musl" else "uclibc"
    own = ["ccache"] if project.settings.buildroot_ccache else []
    names = ["toolchain", libc, *project.machine.toolchain.buildroot, *own]
    given = map(str.strip, project.settings.buildroot_fragments.split(","))
    extra = [Path(name).expanduser() for name in given if name]
    for one in extra:
        if not (project.top / one).is_file():
            raise PiggyError(
                f"{project.origins['buildroot_fragments']}: there is no Buildroot fragment {one}"
            )
    return [*(folder / f"{name}.config" for name in names), *extra]


def doc(project: Project) -> str:
    """What `doit list` says."""
    return f"cross compiler built from source by Buildroot, with {libc(project)}, probed"


def libc(project: Project) -> str:
    """The libc that the settings ask for."""
    return "musl" if project.settings.libc == "musl" else "uClibc-ng"


def sources(project: Project) -> list[Source]:
    """Return the pin of Buildroot itself.

    Its packages' sources are its own affair (fetch:buildroot-sources).
    """
    return [] if project.settings.buildroot_src else [project.source(NAME)]


def needs(project: Project) -> dict[str, Any]:
    """What the task depends on, as words for `task`."""
    config = project.layout.images / "buildroot.config"
    return {
        "files": [
            config,
            project.layout.buildroot_facts,
            project.layout.here / "buildroot.fetched",
            *path.kernel_files(project),
        ],
        "trees": {"override": lambda: override_states(project)},
        "tools": ["make", "gcc", "g++"],
        "settings": {"arch": project.machine.arch, "build": os.path.abspath(project.layout.build)},
    }


def read_facts(project: Project) -> Facts:
    """Read that."""
    return record.decode(project.layout.buildroot_facts, Facts)


def override_states(project: Project) -> dict[str, str]:
    """Return the folders of the override file, each with its state.

    Buildroot itself does not notice a change in them.
    """
    if not project.layout.buildroot_facts.exists():
        return {}
    return {
        place: brtree.folder_state(Path(place))
        for place in sorted(set(read_facts(project).overrides.values()))
    }


def source_files(project: Project) -> list[Path]:
    """Return the file that stands for the tree.

    It is its archive's stamp, or the tarball or Makefile that the user named.
    """
    own = project.settings.buildroot_src
    if not own:
        return [unpack.stamp(project.layout.build, NAME)]
    place = Path(own).expanduser()
    return [place if sdk.is_tarball(own) else place / "Makefile"]


def source_place(project: Project) -> str:
    """Where the tree is, or comes from, as the user said it."""
    return project.settings.buildroot_src or NAME


def source(project: Project) -> Path:
    """Return Buildroot's tree, unpacked if need be.

    It is the pinned release, a tarball of the user's (unpacked), or a tree of the user's, which is
    never written to.

    Raises:
        PiggyError: Buildroot can't work in that path: its makefiles quote nothing.
    """
    own = project.settings.buildroot_src
    place = (
        Path(own).expanduser().absolute()
        if own
        else (project.layout.build / "src" / NAME).absolute()
    )
    if own and sdk.is_tarball(own):
        from tasks.system import disk

        place = unpack.unpack(
            place, disk.sha256_of(place), (project.layout.build / "src").absolute(), "buildroot-own"
        ).absolute()
    if not (place / "package" / "Makefile.in").is_file():
        raise PiggyError(
            f"{project.origins['buildroot_src']}: {own or place} is no Buildroot tree",
            "'buildroot_src=' names a release's tarball or the top folder of a tree",
        )
    for where in (place, project.layout.dl.absolute(), project.layout.build.absolute()):
        if re.search(r"[\s:@]", str(where)):
            raise PiggyError(
                f"Buildroot can't work in '{where}': there is a space, a colon or an @ in it",
                "move it, or choose another with 'buildroot_src=', 'dl=' or 'build='",
            )
    if (place / ".config").exists():
        raise PiggyError(
            f"{place} was configured in place, and such a tree can't be built with O=",
            f"move {place}/.config away",
        )
    return place


def variables(project: Project, *, closed: bool = False) -> dict[str, str]:
    """Return the make variables by which Buildroot finds what is ours.

    Args:
        project: The project.
        closed: It must not ask any site.
    """
    settings = project.settings
    words = {"BR2_DL_DIR": str(project.layout.dl.absolute()), "BR2_JLEVEL": str(project.jobs)}
    site = settings.buildroot_site or settings.mirror
    if settings.buildroot_override:
        words["BR2_PACKAGE_OVERRIDE_FILE"] = str(
            Path(settings.buildroot_override).expanduser().absolute()
        )
    if closed:
        return {**words, "BR2_PRIMARY_SITE": brtree.NOWHERE, "BR2_PRIMARY_SITE_ONLY": "y"}
    if site:
        words["BR2_PRIMARY_SITE"] = (
            site if "://" in site else f"file://{Path(site).expanduser().absolute()}"
        )
    if settings.buildroot_site_only:
        words["BR2_PRIMARY_SITE_ONLY"] = "y"
    return words


def series_of(tarball: Path) -> tuple[int, int]:
    """Return the series of the kernel in a tarball, by its top Makefile.

    Raises:
        PiggyError: The tarball has none.
    """
    from tasks.fetch import tarstream

    with tarstream.members(tarball) as members:
        for member, data in members:
            if member.kind == "file" and re.fullmatch(r"(\./)?[^/]+/Makefile", member.name):
                text = data.read(1 << 20).decode(errors="replace")
                found = re.findall(
                    r"^(?:VERSION|PATCHLEVEL)\s*=\s*(\d{1,9})\s*$", text, re.MULTILINE | re.ASCII
                )
                if len(found) >= 2:
                    return int(found[0]), int(found[1])
                break
    raise PiggyError(f"{tarball} is no tarball of a kernel: it has no top Makefile with a VERSION")


def placed(project: Project, tarball: Path | None) -> Path | None:
    """Have the headers' tarball in dl/linux, and return its path.

    Buildroot looks there first, so that no site is asked.
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
    """Return the ID: a hash of all that decides the result, wherever it lies.

    The place where the toolchain will stand is part of it.
    """
    values = brconfig.read((project.layout.images / "buildroot.config").read_text())
    parts = [
        facts.version,
        brconfig.identity(values),
        facts.recipes,
        os.path.abspath(project.layout.build / "toolchains"),
    ]
    if project.settings.buildroot_override:
        parts.append(Path(project.settings.buildroot_override).expanduser().read_text())
    trees = {
        place: brtree.folder_digest(Path(place)) for place in set(facts.overrides.values())
    }  # gcc's serves three
    parts += [f"{name} {trees[place]}" for name, place in sorted(facts.overrides.items())]
    for symbol, value in sorted(
        values.items()
    ):  # files and folders that the configuration names: patches, uClibc's, ...
        named = Path(value.strip('"'))
        location = value.strip('"').removeprefix("file://")
        if symbol == "BR2_KERNEL_HEADERS_CUSTOM_TARBALL_LOCATION" and Path(location).is_file():
            parts.append(f"headers {project.stamps.digest(location)}")
        elif symbol not in brconfig.PLACES and value.startswith('"/') and named.exists():
            parts.append(f"{symbol} {brtree.folder_digest(named)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def build(job: Job) -> dict[str, list[str]]:
    """Build the toolchain unless it is there, and probe it."""
    project = job.project
    facts = read_facts(project)
    for package, folder in facts.overrides.items():
        if not Path(folder).is_dir():
            raise PiggyError(
                f"the override file names {folder} for {package}, and there is no such folder"
            )
    ident = identity(project, facts)
    place = (project.layout.build / "toolchains" / ident).absolute()
    place.parent.mkdir(parents=True, exist_ok=True)
    with home.locked(place):
        if not home.intact(place):
            if (place / home.SEAL).exists():
                home.clear(
                    place
                )  # it was whole, and was spoilt since; what it was made from is gone
            make(job, facts, place)
    prefix = compiler.prefix_in(place / "host")
    found = path.found(project, prefix, home.key_files(place))
    return record.finish(
        job,
        record.Found(
            ident, prefix, found.version, found.parts, cc=found.cc, user=ident, made=found.made
        ),
    )


def make(job: Job, facts: Facts, place: Path) -> None:
    """Let Buildroot build at `place`, from where it was cut off if it was.

    Then host/ is kept and sealed, and what it was made from is dropped.
    """
    project = job.project
    tree, log = source(project), place / progress.LOG
    words = variables(project, closed=True)
    place.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(project.layout.images / "buildroot.config", place / ".config")
    timeline = Timeline(log)
    timeline.read()
    half = timeline.half_made()
    if timeline.ended:
        terminal.line(
            "resume",
            f"{len(timeline.done())} of {len(facts.packages)} packages are made already"
            + (f"; cleaned first: {', '.join(half)}" if half else ""),
        )
    if half:
        brtree.make(
            tree, place, [f"{package}-dirclean" for package in half], log=job.log, variables=words
        )
        for package in half:
            timeline.open.pop(package, None)
    with progress.shown("buildroot", timeline, facts.packages) as heard:
        brtree.make(
            tree, place, ["all"], log=job.log, variables=words, on_line=heard, jobs=project.jobs
        )
    brtree.make(tree, place, ["prepare-sdk"], log=job.log, variables=words)
    prefix = compiler.prefix_in(place / "host")
    parts = compiler.compiler(prefix, "")[1]
    for name in ("images", "target"):
        shutil.rmtree(place / name, ignore_errors=True)
    for left in (place / "build").iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
    home.seal(
        place,
        sorted(
            {os.path.relpath(part, place) for part in parts if Path(part).is_relative_to(place)}
        ),
    )
