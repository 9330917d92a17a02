"""A Buildroot tree: how make is called in it, and which of its files decide a toolchain.

Nothing is written into the tree: everything is built with O=. Only Buildroot's documented targets
are used (defconfig, show-info, printvars, source, PKG-dirclean, prepare-sdk), so that releases
other than the pinned one work as well.
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
from tasks.system.files import digest_of
from tasks.system.jobserver import Budget
from tasks.system.process import Completed, run

NOWHERE = "file:///nonexistent/piggyback-is-offline"  # a site from which nothing can be downloaded
# The parts of the tree that decide a toolchain, besides the folders of the packages built for it.
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
# Parts of those that do not: Buildroot's test suite, prebuilt toolchains, the container for tests.
IGNORED = ("support/testing/", "toolchain/toolchain-external/", "support/docker/")


class Download(msgspec.Struct, frozen=True):
    """A file that Buildroot needs in its download folder.

    Attributes:
        package: The package that needs it.
        path: Its path below that folder.
    """

    package: str
    path: str


class Facts(msgspec.Struct, frozen=True):
    """What a configured tree tells about itself.

    Attributes:
        version: Buildroot's version.
        target: The tuple in front of the tools' names, such as i686-buildroot-linux-uclibc.
        packages: The folder of each package's recipe, by package.
        stamps: The build folder of each package (below O=), by package.
        downloads: The files that must be in dl/.
        overrides: The source folder that stands in for a package's download, by package.
        recipes: A digest of the tree's files that decide the toolchain.
    """

    version: str
    target: str
    packages: dict[str, str]
    stamps: dict[str, str]
    downloads: list[Download]
    overrides: dict[str, str]
    recipes: str = ""


def environment() -> dict[str, str]:
    """Return the variables that every make in the tree needs.

    The configure scripts of tar and coreutils refuse to run as root without FORCE_UNSAFE_CONFIGURE.
    """
    return {"FORCE_UNSAFE_CONFIGURE": "1"} if os.geteuid() == 0 else {}


def argv(source: Path, out: Path, goals: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """Return the make command for goals in the tree.

    Args:
        source: Buildroot's tree.
        out: The folder for O=.
        goals: Make's goals.
        variables: Make variables.
    """
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
    """Run make in the tree.

    Args:
        source: Buildroot's tree.
        out: The folder for O=, made if it is missing.
        goals: Make's goals.
        log: The file that gets the output.
        variables: Make variables.
        on_line: Called with each line of the output.
        check: Whether a failure raises.
        jobs: The job budget that the build shares with all others. Buildroot gives its packages'
            makes a -j of their own only where MAKEFLAGS has none (package/Makefile.in).

    Raises:
        CommandError: Make failed, and `check` is on.
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


def query(source: Path, out: Path, log: Path | None, variables: Mapping[str, str]) -> Facts:
    """Ask a configured tree for the facts about its build, by `make show-info printvars`.

    Args:
        source: Buildroot's tree.
        out: The folder for O=, which holds the .config.
        log: The file that gets the output.
        variables: Make variables.

    Raises:
        PiggyError: The release is too old for show-info, or the answer is not JSON.
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
    output = done.output
    start = next((line for line in output.splitlines() if line.startswith("{")), "")
    try:
        info = json.loads(start)
    except ValueError as error:
        raise PiggyError(
            f"{source} does not answer 'make show-info' as Buildroot does", f"log: {log}"
        ) from error
    printed = dict(re.findall(r"^(\w+)=(.*)$", output, re.MULTILINE))
    downloads, packages, stamps = [], {}, {}
    overrides = _overrides(printed, info)
    for name, entry in info.items():
        bare = entry.get("name", name).removeprefix("host-")
        packages[name] = entry.get("package_dir") or _folder(source, bare)
        if entry.get("stamp_dir"):
            stamps[name] = entry["stamp_dir"]
        if name not in overrides:
            folder = entry.get("dl_dir") or bare
            downloads += [
                Download(name, f"{folder}/{file['source']}")
                for file in entry.get("downloads") or ()
            ]
    return Facts(
        printed.get("BR2_VERSION_FULL") or printed.get("BR2_VERSION", ""),
        printed.get("GNU_TARGET_NAME", ""),
        packages,
        stamps,
        sorted(set(downloads), key=lambda download: (download.path, download.package)),
        overrides,
    )


def _overrides(printed: Mapping[str, str], info: Iterable[str]) -> dict[str, str]:
    """Return the override folder in force for each package that has one.

    A host package without one of its own takes that of the target package (package/pkg-generic.mk).
    """
    found = {}
    for name in info:
        upper = name.upper().replace("-", "_")
        folder = printed.get(f"{upper}_OVERRIDE_SRCDIR") or printed.get(
            f"{upper.removeprefix('HOST_')}_OVERRIDE_SRCDIR"
        )
        if folder:
            found[name] = folder
    return found


def _folder(source: Path, package: str) -> str:
    """Return where a package's recipe lies, for releases whose show-info does not tell."""
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
    """Return the files of the tree that decide the toolchain, sorted.

    These are the infrastructure, and the recipes and patches of the packages.

    Args:
        source: Buildroot's tree.
        facts: The facts of the configured tree.
    """
    tree = source.resolve()
    found: set[Path] = set()
    # gcc-initial and gcc-final lie in package/gcc, beside the patches that both take.
    folders = {
        re.sub(r"/gcc-(initial|final)$", "", name) for name in facts.packages.values() if name
    }
    for pattern in (*INFRASTRUCTURE, *folders):
        for path in tree.glob(pattern):
            found.update(
                [path] if path.is_file() else (file for file in path.rglob("*") if file.is_file())
            )
    return sorted(
        path
        for path in found
        if not str(path.relative_to(tree)).startswith(IGNORED) and path.suffix != ".pyc"
    )


def tree_digest(source: Path, files: Iterable[Path]) -> str:
    """Return a digest over names and contents of files, which is the same wherever the tree lies.

    Args:
        source: The tree.
        files: Files in it, in a fixed order.
    """
    return digest_of(source.resolve(), files)


def folder_digest(folder: Path) -> str:
    """Return a digest over names, contents and links below a folder, without .git.

    Args:
        folder: A folder, or one file.
    """
    return digest_of(folder, sorted(_walk(folder)), follow=False)


def folder_state(folder: Path) -> str:
    """Return a digest over names, sizes and times below a folder: fast enough for every run.

    It changes whenever `folder_digest` does, unless somebody sets a file's time back.

    Args:
        folder: A folder, or one file.
    """
    whole = hashlib.sha256()
    for path in sorted(_walk(folder)):
        state = os.lstat(path)
        whole.update(os.fsencode(path) + f"\0{state.st_size} {state.st_mtime_ns}\n".encode())
    return whole.hexdigest()[:16]


def _walk(folder: Path) -> Iterable[str]:
    if folder.is_file():
        return [os.fspath(folder)]
    return [
        os.path.join(top, name)
        for top, folders, names in os.walk(folder)
        for name in (*names, *(sub for sub in folders if os.path.islink(os.path.join(top, sub))))
        if f"{os.sep}.git{os.sep}" not in f"{top}{os.sep}"
    ]


def missing(facts: Facts, dl: Path) -> list[Download]:
    """Return the downloads that a build needs and the download folder lacks, each file once.

    Args:
        facts: The facts of the configured tree.
        dl: The download folder.
    """
    downloads = {download.path: download for download in reversed(facts.downloads)}
    return [download for path, download in sorted(downloads.items()) if not (dl / path).is_file()]
