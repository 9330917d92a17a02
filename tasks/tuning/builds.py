"""What can be measured and compared: this machine's build, and others that a word names."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import msgspec

from tasks.cache.digests import content_digest
from tasks.config.machine import LINKS
from tasks.config.project import Project
from tasks.guest import boot
from tasks.system.errors import LONGEST, PiggyError, nearest
from tasks.system.process import run

IMAGES = "images"
_RAW = ("Image", "xipImage")  # the links that hold the kernel proper, uncompressed
PACKED = ("piggy.gz", "Image.gz")  # the links that hold nothing but its compressed form
_FORMS = (
    "a machine, a build folder such as build/pc, an object folder, a vmlinux, 'store' for the"
    " result before this one, 'store:3' for the third before it, or a commit that 'doit size' has"
    " measured"
)


class Unnamed(PiggyError):
    """A word names no build."""


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one build; None and "" for what it has not.

    Attributes:
        name: What it is called, in words.
        vmlinux: The kernel proper.
        files: The images by name, in the order of the chain, vmlinux included.
        image: The name of the one that is booted.
        raw: The name of the one that is uncompressed.
        packed: The name of the one that is nothing but the compressed kernel.
        config: The configuration.
        obj: The object folder.
        box: The folder that busybox was linked in.
        kept: The folder for records and for temporary files.
    """

    name: str
    vmlinux: Path
    files: dict[str, Path]
    image: str
    raw: str
    packed: str
    config: Path | None
    obj: Path | None
    kept: Path
    box: Path | None = None


def of_project(project: Project) -> Build:
    """Return the selected machine's build.

    Raises:
        PiggyError: Nothing is built.
    """
    layout = project.layout
    if not (layout.images / "vmlinux").is_file():
        raise PiggyError(
            f"{layout.images / 'vmlinux'} is not built yet", f"'doit {project.image}' builds it"
        )
    files = {name: layout.images / name for name in ("vmlinux", *project.chain)}
    if project.machine.userspace:
        files |= {
            "busybox": layout.images / "busybox",
            "rootfs": layout.rootfs,
            "initramfs": layout.initramfs,
        }
    if boot.floppy(project):
        files["floppy"] = layout.floppy
    return _build(
        project.settings.machine,
        files,
        project.image,
        layout.kernel_obj,
        layout.here,
        layout.busybox_obj,
    )


def named(project: Project, word: str) -> Build | str:
    """Return the build that a word names, or the commit if it names one.

    Args:
        project: The project.
        word: A machine, a folder, a file, a result of the store, a commit.

    Raises:
        PiggyError: It names none.
    """
    machines = [path.stem for path in (project.top / "configs" / "machines").glob("*.toml")]
    path = _path(word)
    if word in machines and "/" not in word:
        path = project.layout.build / word
        if not (path / IMAGES / "vmlinux").is_file():
            raise PiggyError(
                f"the machine '{word}' has no {path / IMAGES / 'vmlinux'}",
                f"'doit machine={word}' builds it",
            )
        return _folder(project, path, word)
    if (project.top / path).is_dir():
        return _folder(project, path, word)
    if (project.top / path).is_file():
        return _vmlinux(project, word, path, None, None)
    if stored := re.fullmatch(r"store(?::([1-9][0-9]{0,5}))?", word):
        return _stored(project, int(stored[1] or 1))
    for tree in (project.layout.kernel_src, project.top):
        if commit := commit_of(tree, word):
            return commit
    raise Unnamed(
        f"'--against {word}' names no build.{nearest(word, machines)}", f"it may be {_FORMS}"
    )


def _path(word: str) -> Path:
    """Return the path that a word may be.

    Raises:
        PiggyError: It can be none: there is no such user, or a name is too long.
    """
    try:
        path = Path(word).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:
        raise Unnamed(
            f"'--against {word[:LONGEST]}' names no build: {getattr(error, 'strerror', error)}",
            f"it may be {_FORMS}",
        ) from None
    return path


def commit_of(tree: Path, name: str = "HEAD") -> str:
    """Return the full name of a commit of the checkout that a folder is in; "" for none."""
    if name.startswith("-") or not tree.is_dir():
        return ""
    try:
        done = run(
            ["git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"],
            cwd=tree,
            check=False,
        )
    except PiggyError:
        return ""
    word = done.output.strip()
    return word if not done.returncode and re.fullmatch("[0-9a-f]{40,64}", word) else ""


def clean(tree: Path) -> bool:
    """Tell whether a checkout has nothing that is not in its commit; what git ignores aside."""
    done = run(["git", "status", "--porcelain", "--untracked-files=no"], cwd=tree, check=False)
    return not done.returncode and not done.output.strip()


def commits(project: Project, known: Collection[str] = ()) -> list[str]:
    """Return the commits of project and kernel tree, where these are as they were committed.

    Args:
        project: The project.
        known: Commits to leave out.
    """
    trees = (project.top, project.layout.kernel_src)
    heads = {commit: tree for tree in trees if (commit := commit_of(tree))}
    return [one for one, tree in heads.items() if one not in known and clean(tree)]


def _folder(project: Project, path: Path, word: str) -> Build:
    """Return the build in a folder: a machine's, one with images, or an object folder of Kbuild's.

    Raises:
        PiggyError: There is no vmlinux in it.
    """
    top = project.top / path
    if (top / IMAGES / "vmlinux").is_file():
        objects = sorted(
            (one.parent for one in top.glob("kernel/*/vmlinux")),
            key=lambda one: one.stat().st_mtime_ns,
        )
        files = {name: top / IMAGES / name for name in ("vmlinux", *LINKS, "busybox")}
        for name in ("rootfs", "initramfs", "floppy"):
            files[name] = next(iter(sorted((top / IMAGES).glob(f"{name}.*"))), top / name)
        links = [name for name in LINKS if files[name].is_file()]
        image = project.image if project.image in links else (links or ["vmlinux"])[-1]
        obj = objects[-1] if objects else None
        return _build(word, files, image, obj, project.layout.here, top / "busybox")
    if (top / "vmlinux").is_file():
        obj = top if (top / ".vmlinux.cmd").is_file() else None
        config = next((one for one in (top / ".config", top / "config") if one.is_file()), None)
        return _vmlinux(project, word, top / "vmlinux", config, obj)
    raise PiggyError(f"there is no vmlinux in {path}", f"'--against' takes {_FORMS}")


def _stored(project: Project, number: int) -> Build:
    """Return an earlier vmlinux of the store; the first is the last one that is not in images/.

    Raises:
        PiggyError: There are fewer.
    """
    present = content_digest(project.layout.images / "vmlinux")
    digests: dict[str, None] = {}
    for _, _, result in project.store.results():
        if result.task == "vmlinux" and result.outputs and result.outputs[0].digest != present:
            digests.setdefault(result.outputs[0].digest)
    there = [digest for digest in digests if project.store.blob(digest).is_file()]
    if len(there) < number:
        raise PiggyError(
            f"the store {project.layout.store} has {len(there)} earlier"
            f" vmlinux{'es' * (len(there) != 1)}",
            "'doit store' shows what is kept",
        )
    digest = there[number - 1]
    return _vmlinux(
        project, f"store:{number} ({digest[:12]})", project.store.blob(digest), None, None
    )


def _vmlinux(
    project: Project, word: str, path: Path, config: Path | None, obj: Path | None
) -> Build:
    return Build(
        name=word,
        vmlinux=path,
        files={"vmlinux": path},
        image="vmlinux",
        raw="vmlinux",
        packed="",
        config=config,
        obj=obj,
        kept=project.layout.here,
    )


def _build(
    name: str, files: dict[str, Path], image: str, obj: Path | None, kept: Path, box: Path
) -> Build:
    """Return a build of the files that are there; its images lie in one folder."""
    config = files["vmlinux"].with_name("config")
    there = {one: path for one, path in files.items() if path.is_file()}
    return Build(
        name=name,
        vmlinux=files["vmlinux"],
        files=there,
        image=image if image in there else "vmlinux",
        raw=next((one for one in _RAW if one in there), "vmlinux"),
        packed=next((one for one in PACKED if one in there), ""),
        config=config if config.is_file() else None,
        obj=obj if obj and obj.is_dir() else None,
        kept=kept,
        box=box,
    )
