"""A Buildroot tree: how make is called in it, and what of it decides a toolchain.

The tree is never written into: all is built with O=. Everything here works by Buildroot's
documented targets (defconfig, show-info, printvars, source, PKG-dirclean, prepare-sdk), so that
other releases than the pinned one do as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.system.errors import PiggyError
from tasks.system.jobserver import Budget
from tasks.system.process import Completed, run

NOWHERE = "file:///nonexistent/piggyback-is-offline"
# What decides a toolchain besides the packages that are built for it. support/testing is
# Buildroot's own test suite.
INFRASTRUCTURE = (
    "Makefile",
    "Config.in",
    "Config.in.legacy",
    "Makefile.legacy",
    "arch",
    "toolchain",
    "support",
    "system",
    "package/*.mk",
    "package/*.in",
    "package/Config.in*",
    "linux/*.mk",
    "linux/Config.in",
)
IGNORED = ("support/testing/", "toolchain/toolchain-external/", "support/docker/")


class Download(msgspec.Struct, frozen=True):
    """A file that Buildroot wants in its download folder, and the package that wants it.

    The file's path is below that folder.
    """

    package: str
    path: str


class Facts(msgspec.Struct, frozen=True):
    """What a configured tree says of itself.

    version: Buildroot's; target: the name in front of the tools (i686-buildroot-linux-uclibc);
    packages: what is built, by name, with the folder of its recipe; stamps: with its build folder
    (below O=); downloads: what must be in dl/;
    overrides: by package, the folders that stand in for downloads; recipes: a digest over the
        tree's files that count.
    """

    version: str
    target: str
    packages: dict[str, str]
    stamps: dict[str, str]
    downloads: list[Download]
    overrides: dict[str, str]
    recipes: str = ""


def environment() -> dict[str, str]:
    """Return the variables of every call.

    Configure scripts refuse root without a word of consent (tar, coreutils).
    """
    return {"FORCE_UNSAFE_CONFIGURE": "1"} if os.geteuid() == 0 else {}


def argv(source: Path, out: Path, goals: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """The make command for goals in the tree, with O=."""
    return [
        "make",
        "-C",
        os.fspath(source.resolve()),
        f"O={out.absolute()}",
        "--no-print-directory",
        *(f"{name}={value}" for name, value in variables.items()),
        *goals,
    ]


def make(
    source: Path,
    out: Path,
    goals: Sequence[str],
    *,
    log: Path | None,
    variables: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
    jobs: Budget | None = None,
) -> Completed:
    """Run make in the tree with O=out. Raises CommandError when it fails, unless `check` is off.

    jobs: the budget that a build shares with everything else. Buildroot gives its packages' makes a
    -j of their own only where MAKEFLAGS has none (package/Makefile.in).
    """
    out.mkdir(parents=True, exist_ok=True)
    with jobs.token() if jobs else contextlib.nullcontext():
        env = {**environment(), **(jobs.environment() if jobs else {})}
        return run(
            argv(source, out, goals, variables or {}),
            env=env,
            log=log,
            on_line=on_line,
            check=check,
        )


def ask(source: Path, out: Path, log: Path | None, variables: Mapping[str, str]) -> Facts:
    """Ask a configured tree (its .config lies in `out`) about itself.

    Raises:
        PiggyError: The answer makes no sense.
    """
    done = make(
        source,
        out,
        ["-s", "show-info", "printvars"],
        log=log,
        check=False,
        variables={
            **variables,
            "VARS": "%_OVERRIDE_SRCDIR GNU_TARGET_NAME BR2_VERSION_FULL BR2_VERSION",
        },
    )
    if "No rule to make target 'show-info'" in done.output:
        raise PiggyError(
            f"the Buildroot at {source} is too old: it has no 'make show-info'",
            "take a newer release",
        )
    said = done.output
    start = next((line for line in said.splitlines() if line.startswith("{")), "")
    try:
        info = json.loads(start)
    except ValueError as error:
        raise PiggyError(
            f"{source} does not answer 'make show-info' as Buildroot does", f"log: {log}"
        ) from error
    words = dict(re.findall(r"^(\w+)=(.*)$", said, re.MULTILINE))
    downloads, packages, stamps = [], {}, {}
    overrides = _overrides(words, info)
    for name, one in info.items():
        bare = one.get("name", name).removeprefix("host-")
        packages[name] = one.get("package_dir") or _folder(source, bare)
        if one.get("stamp_dir"):
            stamps[name] = one["stamp_dir"]
        if name not in overrides:
            folder = one.get("dl_dir") or bare
            downloads += [
                Download(name, f"{folder}/{file['source']}") for file in one.get("downloads") or ()
            ]
    return Facts(
        words.get("BR2_VERSION_FULL") or words.get("BR2_VERSION", ""),
        words.get("GNU_TARGET_NAME", ""),
        packages,
        stamps,
        sorted(set(downloads), key=lambda one: (one.path, one.package)),
        overrides,
    )


def _overrides(words: Mapping[str, str], info: Iterable[str]) -> dict[str, str]:
    """Return by package the override folder that is in force for it.

    It is its own, or for a host package that of the target's.
    """
    found = {}
    for name in info:
        upper = name.upper().replace("-", "_")
        place = words.get(f"{upper}_OVERRIDE_SRCDIR") or words.get(
            f"{upper.removeprefix('HOST_')}_OVERRIDE_SRCDIR"
        )
        if place:
            found[name] = place
    return found


def _folder(source: Path, package: str) -> str:
    """Where a package's recipe lies, for releases whose show-info does not tell."""
    for pattern in (
        f"package/{package}",
        f"package/*/{package}",
        f"toolchain/{package}",
        f"*/{package}",
    ):
        for path in sorted(source.glob(pattern)):
            return str(path.relative_to(source))
    return ""


def recipe_files(source: Path, facts: Facts) -> list[Path]:
    """Return the files of the tree that decide the toolchain.

    They are the infrastructure, and the recipes and patches of its packages.
    """
    tree = source.resolve()
    found: set[Path] = set()
    # gcc-initial and gcc-final lie in package/gcc, beside the patches of both
    folders = {
        re.sub(r"/gcc-(initial|final)$", "", name) for name in facts.packages.values() if name
    }
    for pattern in (*INFRASTRUCTURE, *folders):
        for path in tree.glob(pattern):
            found.update(
                [path] if path.is_file() else (one for one in path.rglob("*") if one.is_file())
            )
    return sorted(
        path
        for path in found
        if not str(path.relative_to(tree)).startswith(IGNORED) and path.suffix != ".pyc"
    )


def tree_digest(source: Path, files: Iterable[Path]) -> str:
    """A digest over names and contents, the same wherever the tree lies."""
    tree, whole = source.resolve(), hashlib.sha256()
    for path in files:
        whole.update(
            f"{path.relative_to(tree)}\0".encode() + hashlib.sha256(path.read_bytes()).digest()
        )
    return whole.hexdigest()


def folder_digest(folder: Path) -> str:
    """Return a digest over names, contents and links of all that lies in a folder.

    The folder may be a file. Git's own folder is left out.
    """
    whole = hashlib.sha256()
    for path in sorted(_walk(folder)):
        whole.update(os.fsencode(os.path.relpath(path, folder)) + b"\0")
        link = os.path.islink(path)
        whole.update(
            os.fsencode(os.readlink(path))
            if link
            else hashlib.sha256(Path(path).read_bytes()).digest()
        )
    return whole.hexdigest()


def folder_state(folder: Path) -> str:
    """What `folder_digest` would notice, by sizes and times alone: quick enough for every run."""
    whole = hashlib.sha256()
    for path in sorted(_walk(folder)):
        state = os.lstat(path)
        whole.update(os.fsencode(path) + f"\0{state.st_size} {state.st_mtime_ns}\n".encode())
    return whole.hexdigest()[:16]


def _walk(folder: Path) -> Iterable[str]:
    if folder.is_file():
        return [os.fspath(folder)]
    return [
        os.path.join(where, name)
        for where, folders, names in os.walk(folder)
        for name in (*names, *(one for one in folders if os.path.islink(os.path.join(where, one))))
        if f"{os.sep}.git{os.sep}" not in f"{where}{os.sep}"
    ]


def missing(facts: Facts, dl: Path) -> list[Download]:
    """What the build would need and the download folder does not have; each file once."""
    once = {one.path: one for one in reversed(facts.downloads)}
    return [one for _, one in sorted(once.items()) if not (dl / one.path).is_file()]
