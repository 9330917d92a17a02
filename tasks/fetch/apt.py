"""Download of the distribution's packages through apt, as a normal user.

The system's settings are read, never written. apt gets folders of ours for its lists and caches,
and copies of the system's package sources with source packages enabled. Its signature chain
(Release file, index, package) proves that a file is what the distribution published; settings that
weaken the chain are overridden.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from tasks.config.pins import Package
from tasks.fetch import apt_sources, download, tarstream
from tasks.fetch.decompress import Damaged
from tasks.fetch.download import Unavailable
from tasks.system import files, process
from tasks.system.lock import Lock
from tasks.system.pattern import pattern

FRESH_SECONDS = 24 * 3600  # age up to which lists of packages are used
UPDATE_SECONDS = 900  # timeout of apt-get update
# Bytes: lists and caches of one Debian release, uncompressed, and as much again for a second one.
LISTS_ROOM = 250_000_000
# Hooks of the system (PackageKit, cleaners of container images) must not touch our folders.
_NO_HOOKS = "".join(
    f"#clear APT::Update::{hook};\n"
    for hook in ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")
)
_SETTINGS = {
    "APT::Get::AllowUnauthenticated": "false",
    "Acquire::AllowInsecureRepositories": "false",
    "Acquire::AllowWeakRepositories": "false",
    "Acquire::AllowDowngradeToInsecureRepositories": "false",
    "Acquire::Languages": "none",
    "Acquire::Retries": "2",
    "Acquire::http::Timeout": "20",
    "Acquire::https::Timeout": "20",
    # apt treats the name of an unknown package as a regular expression, and "linux-source-6.1" is
    # part of "linux-source-6.12"; with this it does so only for names that begin with ^
    # (apt-get(8), apt-patterns(7)).
    "APT::Cmd::Pattern-Only": "true",
    # "stable" becomes "oldstable" one day, which does no harm.
    "Acquire::AllowReleaseInfoChange::Suite": "true",
}
_NO_ROOM = pattern(r"No space left on device|enough free space|Disk quota exceeded")


class Fetched(msgspec.Struct, frozen=True):
    """A package that apt verified.

    Attributes:
        path: A .deb, or a source package's orig tarball.
        version: The package's full version.
    """

    path: Path
    version: str


@contextlib.contextmanager
def fetched(
    package: Package, state: Path, *, log: Path | None = None, bar: bool = False
) -> Iterator[Fetched]:
    """Download a package through apt for the body of a `with`; remove its file afterwards.

    Args:
        package: The package.
        state: The folder of apt's lists and caches, which stays from call to call; one process at a
            time uses it. Suites other than the system's own have a folder below it, with their
            lists alone.
        log: A file for apt's full output.
        bar: Whether to show progress on standard error.

    Raises:
        Unavailable: apt has no such package, can't download it or can't verify it.
        PiggyError: `state` can't be written.
    """
    if not shutil.which("apt-get"):
        raise Unavailable("this host has no apt, so upstream or a mirror is the only way")
    suites = (package.suite or "").split()
    state = state.absolute() / "suites" / "+".join(suites) if suites else state.absolute()
    with files.explained(state):
        state.mkdir(parents=True, exist_ok=True)
    with Lock(state / "lock", os.fspath(state)).held():
        with files.explained(state):
            options, fingerprint = _configure(state, suites, log)
        updated = ""
        if not _is_fresh(state, fingerprint):
            updated = _update(options, state, fingerprint, suites, log)
        folder = state / "files" / package.name
        try:
            archive = _get(package, options, folder, log, bar)
        except Unavailable as why:
            if updated:
                raise Unavailable(f"{why}{updated}") from why
            # Old versions leave the archive, new ones come.
            updated = _update(options, state, fingerprint, suites, log)
            try:
                archive = _get(package, options, folder, log, bar)
            except Unavailable as still:
                raise Unavailable(f"{still}{updated}") from still
        yield archive
        shutil.rmtree(folder, ignore_errors=True)


def tarball_in(deb: Path, member: str, target: Path) -> None:
    """Extract one file of a binary package.

    dpkg-deb opens the package, and `tarstream` reads the tar archive. python-debian would use
    tarfile, which trusts each header (see `tarstream`) and sets no limit to the unpacked size.

    Args:
        deb: The package.
        member: The path of the file in it.
        target: Where to write the file.

    Raises:
        Unavailable: The package has no such file, or is damaged.
    """
    import subprocess

    inner_path = member.strip("/")
    argv = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with process.child(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as dpkg:
        assert dpkg.stdout is not None
        chunks = iter(functools.partial(dpkg.stdout.read, 1 << 18), b"")
        try:
            with tarstream.of_stream(deb, chunks, deb.stat().st_size) as members:
                for entry, data in members:
                    if entry.kind == "file" and entry.name.removeprefix("./") == inner_path:
                        download.discard(target)
                        with download.written(target, entry.size), target.open("xb") as file:
                            shutil.copyfileobj(data, file, 1 << 20)
                            file.flush()
                            os.fsync(file.fileno())
                        return
        except Damaged as error:
            raise Unavailable(f"{deb.name} can't be read: {error.message}") from error
    raise Unavailable(f"{deb.name} does not hold {inner_path}")


def _configure(state: Path, suites: Sequence[str], log: Path | None) -> tuple[list[str], str]:
    """Write apt's configuration and package sources into `state`.

    Args:
        state: The folder.
        suites: Suites to use in place of the system's own; empty for the latter.
        log: A file for apt's output.

    Returns:
        apt's options, and a digest of the package sources.
    """
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").write_text("")  # installed packages don't count
    (state / "apt.conf").write_text(_NO_HOOKS)
    texts = apt_sources.private_copies(log)
    if suites:
        texts = {
            f"{number}-{name}": text
            for number, suite in enumerate(suites)
            for name, text in apt_sources.of_suite(texts, suite).items()
        }
    sources = state / "sources.list.d"
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir()
    for name, text in texts.items():
        (sources / name).write_text(text)
    paths = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": sources,
        "Dir::State": state,
        "Dir::State::Lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Cache::archives": state / "cache" / "archives",
    }
    if os.geteuid() == 0:  # apt would become the user _apt, who may not enter our folders
        paths["APT::Sandbox::User"] = "root"
    # The user's preferences and default release are for the system's suites only.
    if suites:
        paths.update(
            {
                "Dir::Etc::preferences": "/dev/null",
                "Dir::Etc::preferencesparts": "/dev/null",
                "APT::Default-Release": "",
            }
        )
    options = ["-c", str(state / "apt.conf")]
    options += [f"-o{key}={value}" for key, value in {**_SETTINGS, **paths}.items()]
    return options, hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()


def _is_fresh(state: Path, fingerprint: str) -> bool:
    """Tell whether the lists are younger than FRESH_SECONDS and come from these package sources."""
    stamp = state / "updated"
    try:
        return (
            stamp.read_text() == fingerprint
            and 0 <= time.time() - stamp.stat().st_mtime < FRESH_SECONDS
        )
    except OSError:
        return False


def _update(
    options: Sequence[str], state: Path, fingerprint: str, suites: Sequence[str], log: Path | None
) -> str:
    """Run apt-get update.

    Returns:
        A text to append to the message of a later failure; never empty.

    Raises:
        Unavailable: The server has none of `suites`. One of them is enough: a system without the
            security archive's address has no X-security, for example.
        PiggyError: The disk is too full for the lists.
    """
    if files.free(state) < LISTS_ROOM:  # on a full disk apt 2.6 does not fail, but hangs
        raise files.no_space(state / "lists", LISTS_ROOM)
    done = process.run(
        ["timeout", str(UPDATE_SECONDS), "apt-get", *options, "update"], log=log, check=False
    )
    if done.returncode == 0:
        (state / "updated").write_text(fingerprint)
    complaint = _complaint(done, ("E: ", "W: Failed", "Err:", "W: "))
    if suites and all(
        f" {suite} Release' does not have a Release file" in done.output for suite in suites
    ):
        raise Unavailable(
            f"there is no suite '{' '.join(suites)}' at this server, or no longer: old releases"
            f" move to another one ({complaint})"
        )
    return f"; 'apt-get update' said: {complaint}" if complaint else " (just updated)"


def _get(
    package: Package, options: Sequence[str], folder: Path, log: Path | None, bar: bool
) -> Fetched:
    """Download a package's files into `folder`; apt resumes partial files of an earlier run.

    Raises:
        Unavailable: apt has no such package, can't download it or can't verify it.
        PiggyError: The disk is too full.
    """
    binary = package.kind == "binary"
    verb = (
        ["download", package.name]
        if binary
        else ["source", "--download-only", "--only-source", package.name]
    )
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # --print-uris leaves out complete files, so it runs in a folder that never has a package's
    # file.
    planned = process.run(
        ["apt-get", *options, *verb, "--print-uris"], cwd=folder.parent, log=log, check=False
    )
    sizes = {
        match[1]: int(match[2])
        for match in re.finditer(r"^'[^']*' (\S+) (\d+) ", planned.output, re.MULTILINE)
    }
    # Debian Policy, 5.6.12 and deb(5): NAME_VERSION_ARCHITECTURE.deb; dpkg-source(1):
    # NAME_VERSION.orig.tar.COMPRESSION
    names = [
        name for name in sizes if re.search(r"\.deb$" if binary else r"\.orig\.tar\.\w+$", name)
    ]
    if planned.returncode or len(names) != 1:
        raise Unavailable(
            _complaint(planned)
            or f"apt has no {'package' if binary else 'orig tarball'} of that name"
        )
    if not names[0].startswith(f"{package.name}_"):
        raise Unavailable(f"apt has no package {package.name}, and would bring {names[0]} for it")
    present = sum(file.stat().st_size for file in folder.iterdir() if file.name in sizes)
    if sum(sizes.values()) - present > files.free(folder):
        raise files.no_space(folder / names[0], sum(sizes.values()))
    for file in folder.iterdir():
        if file.name not in sizes and file.is_file():
            file.unlink()  # another version's
    status = ["-oAPT::Status-Fd=1"] if bar else []
    with _percent(bar, f"{package.name} (apt)") as follow:
        done = process.run(
            ["apt-get", *options, *status, *verb], cwd=folder, log=log, check=False, on_line=follow
        )
    if "cannot be authenticated" in done.output or "nauthenticated packages" in done.output:
        raise Unavailable("apt can't vouch for it (no valid signature), so it is refused")
    if _NO_ROOM.search(done.output):
        raise files.no_space(folder, sum(sizes.values()))
    path = folder / names[0]
    if done.returncode or not path.is_file():
        raise Unavailable(_complaint(done) or f"apt-get did not bring {path.name}")
    return Fetched(path, _version(path, binary))


def _version(path: Path, binary: bool) -> str:
    """Return the package's full version, from the package itself."""
    if binary:
        return process.run(["dpkg-deb", "--field", str(path), "Version"]).output.strip()
    from debian.deb822 import Deb822

    for dsc in path.parent.glob("*.dsc"):
        with contextlib.suppress(EOFError):  # an empty one
            version = Deb822(dsc.read_text(errors="replace")).get("Version", "").strip()
            if version:
                return version
    raise Unavailable("its .dsc file tells no version")


def _complaint(done: process.Completed, marks: Sequence[str] = ("E: ", "W: ")) -> str:
    """Return apt's most serious message, "" if there is none.

    Args:
        done: The finished apt-get.
        marks: Prefixes of messages, the most serious first; the first line with one is returned.
    """
    if done.returncode and _NO_ROOM.search(done.output):
        return "no space left on the disk for apt's lists and files"
    for mark in marks:
        for line in done.output.splitlines():
            if line.startswith(mark):
                return re.sub(r"^(E|W): ", "", line).strip()
    if done.argv[0] == "timeout" and done.returncode == 124:  # timeout(1)
        return f"not done after {done.argv[1]} seconds"
    return f"apt-get ended with status {done.returncode}" if done.returncode else ""


@contextlib.contextmanager
def _percent(bar: bool, label: str) -> Iterator[Callable[[str], None]]:
    """Yield a function for apt's output lines that shows the progress among them.

    Source: apt's README.progress-reporting (dlstatus).
    """
    from tqdm import tqdm

    with tqdm(desc=label, total=100, unit="%", disable=not bar, leave=False) as shown:

        def follow(line: str) -> None:
            progress = re.match(r"dlstatus:\d+:([\d.]+):", line)
            if progress:
                shown.update(min(100.0, float(progress[1])) - shown.n)

        yield follow
