"""What grew and shrank: `doit size [NAME] --against REF`.

images/* and the other build's + the linker's maps -> the kernel's functions and objects
images/busybox, the other build's -> its functions, or its applets
images/rootfs.*, floppy.img, the other build's -> their files
"""

from __future__ import annotations

import msgspec

from tasks.config.project import Project
from tasks.kbuild.brought_in import BroughtIn
from tasks.kconfig import dotconfig
from tasks.system.errors import PiggyError
from tasks.tuning import builds, compare, pieces, sizes, userspace
from tasks.tuning.builds import Build
from tasks.tuning.compare import Comparison
from tasks.tuning.image import Row
from tasks.tuning.sizes import Record

# What beside the kernel can be compared, and what a line of it is.
NAMES = {"busybox": "Function", "applets": "Applet", "rootfs": "File", "floppy": "File"}


def origin(project: Project, record: Record, old: Record | None = None) -> BroughtIn:
    """Return what tells which symbol brings in an object of a build, or of either of two."""
    arch = next(
        (piece.object.split("/")[1] for piece in record.pieces if piece.object.startswith("arch/")),
        project.machine.arch,
    )
    on = {
        name: value
        for one in (record, old)
        for name, value in (one.config.items() if one else ())
        if value in ("y", "m")
    }
    return BroughtIn(project.layout.kernel_src, on, arch)


def kernel(
    project: Project, record: Record, word: str, other: Build | str
) -> tuple[Comparison, list[str]]:
    """Compare with another build's kernel; return what is not known of it, too.

    Args:
        project: The project.
        record: The present build's sizes.
        word: What names the other build.
        other: That build, or the commit.

    Raises:
        PiggyError: It is a commit that was never measured.
    """
    notes = list[str]()
    if isinstance(other, str):
        old = sizes.of_commit(project.layout.here, other)
        if old is None:
            raise PiggyError(
                f"nothing was measured at the commit {other[:12]}",
                f"check it out, run 'doit {project.image} size' with nothing uncommitted, and come"
                " back: its sizes are kept",
            )
    else:
        old = sizes.measure(other, known=pieces.objects_of(record.pieces))
        if old.why:
            notes.append(f"{word}: {old.why}, so objects are told by names alone")
    if not old.config:
        notes.append(f"{word}: its configuration is not known")
    chain = origin(project, record, old).chain

    def symbol(path: str) -> str:
        return "" if path.startswith("(") else next(iter(chain(path)), "")

    return compare.compare(old, record, symbol), notes


def file_of(name: str) -> str:
    """Return the image that one of NAMES is about."""
    return "busybox" if name == "applets" else name


def apart(build: Build, name: str) -> list[Row]:
    """Return the rows of one of NAMES, from the files of a build alone.

    Raises:
        PiggyError: It has no such file, or it can't be taken apart.
    """
    if file_of(name) not in build.files:
        raise PiggyError(
            f"{build.name} has no {file_of(name)}",
            "a machine and a build folder have it where it was built; a result of the store, an"
            " object folder and a vmlinux have the kernel alone",
        )
    path = build.files[file_of(name)]
    if file_of(name) != "busybox":
        return userspace.files(path)
    rows = userspace.busybox(path, build.box or path.parent)
    if name == "busybox":
        return rows
    return userspace.applets(rows, userspace.applet_names(path.with_name("busybox.links")))


def rest(build: Build, other: Build, name: str) -> Comparison:
    """Compare what is not the kernel with another build's.

    Args:
        build: The present build.
        other: The other one.
        name: One of NAMES.

    Raises:
        PiggyError: One of the two has no such file, or it can't be taken apart.
    """
    try:
        old = apart(other, name)
    except PiggyError as error:
        if file_of(name) not in other.files or name == "floppy":
            raise
        raise PiggyError(
            error.message,
            f"of {other.name} the files are needed as they were built there: images and, for"
            " busybox, the folder that it was linked in",
        ) from error
    new = apart(build, name)
    if name == "busybox":
        return compare.rows(old, new, _function, _config(other), _config(build))
    if name != "applets":
        return compare.rows(old, new, _file, {}, {})
    found = compare.rows(old, new, lambda row: row.object, {}, {})
    labels = {row.object: row.name for row in (*old, *new)}
    lines = [
        msgspec.structs.replace(one, name=labels[one.name], where=one.name) for one in found.symbols
    ]
    return msgspec.structs.replace(found, symbols=lines)


def named(project: Project, word: str) -> Build:
    """Return the build that a word names, if it is more than a commit.

    Raises:
        PiggyError: It names none, or a commit.
    """
    other = builds.named(project, word)
    if isinstance(other, str):
        raise PiggyError(
            f"of the commit {other[:12]} the sizes of the kernel alone are kept",
            "the rest can be compared with a machine's, or that of a folder such as build/pc",
        )
    return other


def _config(build: Build) -> dict[str, str]:
    path = build.vmlinux.with_name("busybox.config")
    return dotconfig.read_config(path) if path.is_file() else {}


def _function(row: Row) -> str:
    return "" if row.name.startswith("[") else compare.plain(row.name)


def _file(row: Row) -> str:
    return "" if row.object in userspace.GROUPS else row.object
