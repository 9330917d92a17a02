"""Other boots to compare with: profiles that were kept, and images of other builds on this machine.

A word for --against names the same as in `doit size`, read by the same code (tuning/builds.py):
a machine, a build folder, a vmlinux, a result of the store, a commit. A profile goes before these.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tasks.config.project import Project
from tasks.guest.qemu import Boot
from tasks.system.errors import PiggyError
from tasks.system.files import read_regular
from tasks.tuning import boot, builds, sizes
from tasks.tuning.boot import Profile
from tasks.tuning.builds import Build, Unnamed

FOLDER = "boot_profile"  # of a machine's folder, with its profiles
_MOST = 1 << 26  # bytes of a profile


def images(project: Project, it: Boot, found: Build, word: str) -> Boot:
    """Return the boot of another build's images on this machine.

    A build that has nothing but a vmlinux is booted with this one's root filesystem.

    Args:
        project: The project.
        it: The boot of this build.
        found: The other build.
        word: What the user called it.

    Raises:
        PiggyError: It has not the image that is booted, no root filesystem of that kind, or nothing
            but a file that is no vmlinux.
    """
    files = found.files
    kernel = files.get(it.kernel.name)
    alone = set(files) == {"vmlinux"}
    if alone:
        sizes.kernel(files["vmlinux"])
    disk, initrd = (
        (it.rootfs, it.initrd) if alone else (files.get("rootfs"), files.get("initramfs"))
    )
    wanted = [kernel, disk if it.rootfs else initrd if it.initrd else kernel]
    if not all(path and path.is_file() for path in wanted):
        raise PiggyError(
            f"'--against {word}' has no {it.kernel.name} with a root filesystem",
            "image=vmlinux boots one that has only a vmlinux"
            if alone
            else "name a machine or a build folder that has both, such as build/pc",
        )
    assert kernel
    return msgspec.structs.replace(
        it,
        kernel=kernel.absolute(),
        rootfs=disk.absolute() if it.rootfs and disk else None,
        initrd=initrd.absolute() if it.initrd and initrd else None,
    )


def refuse_another(ours: Path, other: Path, word: str) -> None:
    """Check that another vmlinux is for the same processors.

    Args:
        ours: The vmlinux of this build.
        other: The other one.
        word: What the user called it.

    Raises:
        PiggyError: It is not.
    """

    def kind(path: Path) -> bytes:
        with path.open("rb") as stream:
            head = stream.read(20)
        return head[4:6] + head[18:20]  # EI_CLASS, EI_DATA, e_machine; see elf(5)

    if ours.is_file() and kind(ours) != kind(other):
        raise PiggyError(
            f"'--against {word}' is a kernel for another architecture",
            "boots of one machine are compared",
        )


def kept(folder: Path) -> list[Path]:
    """Return the profiles that are kept in a folder, the last one last."""
    return sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)


def counted(folder: Path, word: str) -> bool:
    """Tell whether a word of --against stands for a profile, as `profile` reads it.

    Args:
        folder: The folder of profiles.
        word: The word.
    """
    return word == "last" or word.endswith(".json") or bool(_starting(kept(folder), word))


def _starting(there: Sequence[Path], word: str) -> list[Path]:
    return [path for path in there if path.stem.startswith(word)]


def last(folder: Path, state: str = "") -> Profile:
    """Return the profile that was kept last.

    Args:
        folder: The folder of profiles.
        state: The present boot's digest, which is no earlier one unless it is alone.

    Raises:
        PiggyError: There is none.
    """
    found = kept(folder)
    others = [path for path in found if path.stem != state[:16]] or found
    if not others:
        raise PiggyError("'--against last' names no profile", f"profiles are kept in {folder}")
    return read(others[-1])


def named(project: Project, folder: Path, word: str) -> Profile | Build:
    """Return the earlier profile, or the build to boot, that a word names.

    Args:
        project: The project.
        folder: The folder of profiles.
        word: The first digits of a profile's name, a file, or what `builds.named` reads. A commit
            stands for the last profile that was made at it.

    Raises:
        PiggyError: It names none, several, or one that can't be read.
    """
    there = kept(folder)
    found = _starting(there, word)
    if len(found) > 1:
        raise PiggyError(
            f"'--against {word}' names {len(found)} profiles",
            f"more digits tell them apart{_last(found)}",
        )
    if found or word.endswith(".json"):
        return read(found[0] if found else Path(word))
    try:
        build = builds.named(project, word)
    except Unnamed as error:
        raise PiggyError(
            error.message, f"{error.hint}; or 'last', or a profile that was kept{_last(there)}"
        ) from None
    if not isinstance(build, str):
        return build
    for path in reversed(there):
        one = read(path)
        if build in one.commits:
            return one
    raise PiggyError(
        f"no boot was counted at the commit {build[:12]}",
        "check it out, run 'doit boot_profile' with nothing uncommitted, and come back: the profile"
        f" is kept{_last(there)}",
    )


def _last(there: Sequence[Path]) -> str:
    """Return the names of the last few profiles, in brackets; "" if there are none."""
    return f" ({', '.join(path.stem for path in there[-5:])})" if there else ""


def read(path: Path) -> Profile:
    """Read a profile.

    Raises:
        PiggyError: It is none, or of another format.
    """
    try:
        old = msgspec.json.decode(read_regular(path, _MOST, follow=True), type=Profile)
    except (msgspec.DecodeError, msgspec.ValidationError, OSError) as error:
        raise PiggyError(
            f"{path} is no profile: {error}", "'doit boot_profile' makes one"
        ) from None
    if old.format != boot.FORMAT:
        raise PiggyError(
            f"{path} has format {old.format}, not {boot.FORMAT}", "profile that boot again"
        )
    return old
