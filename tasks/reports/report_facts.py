"""What the report says of a build, as data."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import msgspec

from tasks import kernel_config
from tasks.config.machine import LINKS
from tasks.config.project import Project
from tasks.graph import history as runs
from tasks.graph.task import TaskDict
from tasks.kbuild import configure
from tasks.kconfig import origins
from tasks.kconfig.origins import Origin
from tasks.reports import boot_profile, matrix, report_tree, size, size_against, size_text, why
from tasks.reports.report_tree import Tree
from tasks.reports.size_text import Share
from tasks.system import address, files, process, terminal
from tasks.system.errors import PiggyError
from tasks.toolchains import record as tools
from tasks.tuning import builds, history, sizes
from tasks.tuning.boot import Profile
from tasks.tuning.builds import Build
from tasks.tuning.history import Point
from tasks.tuning.sizes import Record

_USERSPACE = {
    "busybox": "the programs of user space, in one",
    "rootfs": "the disk image with the root filesystem",
    "initramfs": "the root filesystem as an archive for the kernel's memory",
}


class Step(msgspec.Struct, frozen=True):
    """One file of the chain.

    Attributes:
        name: Its name, and its task's.
        doc: What it is.
        size: Bytes.
        after: What it is made from; "" for the first one.
        seconds: How long its task took last; None if that is not known.
    """

    name: str
    doc: str
    size: int
    after: str
    seconds: float | None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the sections show.

    Attributes:
        project: The project.
        build: The build.
        record: Its measurement, as `size` has it.
        notes: What a reader must know first: that images are not up to date, and the like.
        made: When the report was made (seconds since 1970).
        kernel: The chain from vmlinux to the image that is booted, and beyond.
        userspace: busybox and what it goes into.
        trees: What each image consists of.
        points: The sizes over the builds.
        configuration: The symbols with their origins.
        shares: What each Kconfig symbol brings in.
        guest: What the booted kernel said of its memory; "" if it was not booted since.
        environment: What it was built with, on and from: titles with names and values.
        boot: The last counted boot; None if there is none.
        before: The boot that it is compared with; None for none.
    """

    project: Project
    build: Build
    record: Record
    notes: list[str]
    made: float
    kernel: list[Step]
    userspace: list[Step]
    trees: list[Tree]
    points: list[Point]
    configuration: list[Origin]
    shares: list[Share]
    guest: str
    environment: dict[str, list[tuple[str, str]]]
    boot: Profile | None = None
    before: Profile | None = None

    def shorten(self, text: str) -> str:
        """Return a sentence with short names of files."""
        return why.short(self.project, text)


def gather(project: Project, others: Sequence[TaskDict], against: str = "") -> Facts:
    """Gather the facts of the selected machine's build.

    Args:
        project: The project.
        others: All other tasks.
        against: The boot to compare the last one with (see boot_profile.before); "" for none.

    Raises:
        PiggyError: Nothing is built, or no such boot was counted.
    """
    before = boot_profile.before(project, against) if against else None
    build = builds.of_project(project)
    record = sizes.measure(build)
    brought = size_against.origin(project, record)
    trees, notes = report_tree.all_of(project, build, record, brought.chain)
    configuration, more = _configuration(project, record)
    took = runs.durations(project.layout.history, 1)
    return Facts(
        project=project,
        build=build,
        record=record,
        notes=[*size.stale_notes(build, others), *sizes.notes(record), *notes, *more],
        made=time.time(),
        kernel=list(_kernel(project, record, took)),
        userspace=list(_userspace(record, took)),
        trees=trees,
        points=history.of(project, build),
        configuration=configuration,
        shares=size_text.by_config(record.raw, brought.chain),
        guest=size.guest(build),
        environment=_environment(project, build),
        boot=boot_profile.latest(project),
        before=before,
    )


def _kernel(project: Project, record: Record, took: dict[str, list[float]]) -> Iterator[Step]:
    links = {"vmlinux": "", **{name: link.after for name, link in project.chain.items()}}
    docs = {"vmlinux": "the kernel proper, as the linker made it", **LINKS}
    for name, after in links.items():
        if name in record.files:
            yield Step(name, docs[name], record.files[name], after, _last(took, name))


def _userspace(record: Record, took: dict[str, list[float]]) -> Iterator[Step]:
    for name, doc in _USERSPACE.items():
        if name in record.files:
            after = "" if name == "busybox" else "busybox"
            yield Step(name, doc, record.files[name], after, _last(took, name))


def _last(took: dict[str, list[float]], name: str) -> float | None:
    return took[name][-1] if took.get(name) else None


def _configuration(project: Project, record: Record) -> tuple[list[Origin], list[str]]:
    """Return the symbols with their origins, and a note where not all can be told."""
    notes, requests, model = [], {}, None
    try:
        tree = kernel_config.tree(project)
        requests = dict(tree.asked().requests)
        model = configure.model_aside(tree)
    except (PiggyError, OSError) as error:
        said = error.message if isinstance(error, PiggyError) else str(error)
        notes.append(f"why symbols have their values is known of fragments alone: {said}")
    base = project.machine.kernel.base
    return origins.origins(record.config, requests, model, base), notes


def _environment(project: Project, build: Build) -> dict[str, list[tuple[str, str]]]:
    machine, settings = project.machine, project.settings
    changed = {
        name: (value, project.origins[name])
        for name, value in msgspec.structs.asdict(settings).items()
        if project.origins[name] != "default"
    }
    when = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(_built(build)))
    return {
        "Machine": [
            ("name", settings.machine),
            ("description", machine.description),
            ("architecture", machine.arch),
            ("booted image", f"{build.image}, built {when}"),
            *_boot(project),
        ],
        "Sources": [
            ("kernel", _release(project)),
            ("kernel tree", address.shown(str(project.layout.kernel_src))),
            *_commit("commit of the kernel tree", project.layout.kernel_src, project.top),
            *_commit("commit of the project", project.top),
            ("base", machine.kernel.base),
            ("fragments", ", ".join(map(str, kernel_config.present_paths(project)))),
        ],
        "Tools": [*_toolchain(project), *_programs(project)],
        "Settings that are not the default's": [
            (name, f"{address.shown(str(value))} ({origin})")
            for name, (value, origin) in changed.items()
        ],
        "This report": [
            ("made", time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime())),
            ("load of the host", ", ".join(f"{one:.1f}" for one in os.getloadavg())),
            ("processors", str(len(os.sched_getaffinity(0)))),
            ("host", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ],
    }


def _built(build: Build) -> float:
    return build.files[build.image].stat().st_mtime


def _boot(project: Project) -> Iterator[tuple[str, str]]:
    boot = matrix.boot_figures(project)
    if "ready" in boot:
        yield "last qemu_test", f"shell after {boot['ready']} s ({boot.get('accel', '?')})"


def _release(project: Project) -> str:
    """Return the kernel's release as Kbuild wrote it, or the pinned version."""
    path = project.layout.kernel_obj / "include" / "config" / "kernel.release"
    with contextlib.suppress(OSError):
        return files.read_regular(path, 1 << 12).decode(errors="replace").strip()
    return project.kernel_pin.version


def _commit(word: str, folder: Path, apart: Path | None = None) -> Iterator[tuple[str, str]]:
    """Yield the commit of a checkout, if it is one that is not the other's."""
    name = builds.commit_of(folder)
    if name and (apart is None or name != builds.commit_of(apart)):
        yield word, f"{name}{'' if builds.clean(folder) else ', with changes'}"


def _toolchain(project: Project) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(PiggyError, OSError):
        kernel = tools.read(project)
        yield "compiler", f"{kernel.version} (toolchain={kernel.provider})"
    if project.machine.userspace:
        with contextlib.suppress(PiggyError, OSError):
            user = tools.read_user(project)
            yield "libc", f"{user.libc}, kernel headers {user.headers}"


def _programs(project: Project) -> Iterator[tuple[str, str]]:
    """Yield the first line of --version of the programs that a build and a boot take."""
    qemu = project.machine.qemu
    for name in ("make", *([qemu.binary] if qemu else [])):
        with contextlib.suppress(PiggyError, OSError):
            done = process.run([name, "--version"], check=False)
            if not done.returncode and done.output.strip():
                yield name, terminal.printable(done.output.strip().splitlines()[0][:200])
    yield "Python", platform.python_version()
    for name in ("doit", "kconfiglib", "plotly"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)
