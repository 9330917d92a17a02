"""Packages from the distribution through apt, as a normal user.

The system's settings are read, never written.

apt is given folders of ours for its lists and caches, and copies of the system's package sources
with source packages switched on. Its signature chain (Release file, index, package) is the proof
that a file is what the distribution published; every setting that would weaken it is overruled.
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

FRESH_SECONDS = 24 * 3600  # how long lists of packages are good for
UPDATE_SECONDS = 900  # how long it may take to get them
# bytes: lists and caches of one Debian release, uncompressed, and as much again for a second
LISTS_ROOM = 250_000_000
# Hooks of the system (PackageKit, cleaners of container images) have no business with our folders.
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
    # apt takes the name of a package that is not there for a regular expression, and
    # "linux-source-6.1" is part of "linux-source-6.12"; with this it does so only for names that
    # begin with ^ (apt-get(8), apt-patterns(7))
    "APT::Cmd::Pattern-Only": "true",
    "Acquire::AllowReleaseInfoChange::Suite": "true",
}  # "stable" becomes "oldstable" one day: no harm in that
_NO_ROOM = re.compile(r"No space left on device|enough free space|Disk quota exceeded")


class Fetched(msgspec.Struct, frozen=True):
    """A package's file as apt verified it: a .deb, or a source package's orig tarball.

    And the package's version.
    """

    path: Path
    version: str


@contextlib.contextmanager
def fetched(
    package: Package, state: Path, *, log: Path | None = None, bar: bool = False
) -> Iterator[Fetched]:
    """Get a package through apt, and give it for the body of a `with`.

    Its file is removed afterwards.

    state: a folder for apt's lists and caches, kept from call to call; one process at a time uses
    it. Packages of suites that are not the system's own have a folder below it to themselves, with
    those suites' lists alone.
    log: a file for apt's full output; bar: show progress on standard error. Raises Unavailable when
    apt can't give the package or can't vouch for it, PiggyError when `state` can't be written.
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
            found = _get(package, options, folder, log, bar)
        except Unavailable as why:
            if updated:
                raise Unavailable(f"{why}{updated}") from why
            updated = _update(
                options, state, fingerprint, suites, log
            )  # old versions leave the archive, new ones come
            try:
                found = _get(package, options, folder, log, bar)
            except Unavailable as still:
                raise Unavailable(f"{still}{updated}") from still
        yield found
        shutil.rmtree(folder, ignore_errors=True)


def tarball_in(deb: Path, member: str, target: Path) -> None:
    """Write the file `member` of a binary package to `target`.

    Raises Unavailable when the package does not hold it.

    dpkg-deb opens the package, as it does for apt, and our reader takes the tar archive apart:
    python-debian has tarfile do it, which trusts each header (see `tarstream`) and sets no bound to
    what a .deb unpacks to.
    """
    import subprocess

    wanted = member.strip("/")
    argv = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with process.child(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as dpkg:
        assert dpkg.stdout is not None
        chunks = iter(functools.partial(dpkg.stdout.read, 1 << 18), b"")
        try:
            with tarstream.of_stream(deb, chunks, deb.stat().st_size) as members:
                for one, data in members:
                    if one.kind == "file" and one.name.removeprefix("./") == wanted:
                        download.discard(target)
                        with download.written(target, one.size), target.open("xb") as file:
                            shutil.copyfileobj(data, file, 1 << 20)
                            file.flush()
                            os.fsync(file.fileno())
                        return
        except Damaged as error:
            raise Unavailable(f"{deb.name} can't be read: {error.message}") from error
    raise Unavailable(f"{deb.name} does not hold {wanted}")


def _configure(state: Path, suites: Sequence[str], log: Path | None) -> tuple[list[str], str]:
    """Lay out `state`, and return apt's options and a fingerprint of the package sources in it.

    The system's own, or those of other suites.
    """
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").write_text("")  # what is installed here is of no interest
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
    places = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": sources,
        "Dir::State": state,
        "Dir::State::Lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Cache::archives": state / "cache" / "archives",
    }
    if os.geteuid() == 0:  # apt would become the user _apt, who may not enter our folders
        places["APT::Sandbox::User"] = "root"
    # the user's preferences among the system's suites, and the release that they default to, are
    # not for this
    if suites:
        places.update(
            {
                "Dir::Etc::preferences": "/dev/null",
                "Dir::Etc::preferencesparts": "/dev/null",
                "APT::Default-Release": "",
            }
        )
    options = ["-c", str(state / "apt.conf")]
    options += [f"-o{key}={value}" for key, value in {**_SETTINGS, **places}.items()]
    return options, hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()


def _is_fresh(state: Path, fingerprint: str) -> bool:
    """Tell whether the lists were made today from these package sources."""
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
    """Bring the lists up to date.

    Returns what to add to a later complaint, which is never empty. Of several suites, it is enough
    that the server has one: a system without the security archive's address has no X-security, for
    example.
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
    """Download a package's files into `folder`.

    apt goes on with what an earlier run left of them.
    """
    binary = package.kind == "binary"
    verb = (
        ["download", package.name]
        if binary
        else ["source", "--download-only", "--only-source", package.name]
    )
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # --print-uris leaves out what is complete already, so it is asked in a folder that never has a
    # package's file
    planned = process.run(
        ["apt-get", *options, *verb, "--print-uris"], cwd=folder.parent, log=log, check=False
    )
    sizes = {
        found[1]: int(found[2])
        for found in re.finditer(r"^'[^']*' (\S+) (\d+) ", planned.output, re.MULTILINE)
    }
    # Debian Policy, 5.6.12 and deb(5): NAME_VERSION_ARCHITECTURE.deb; dpkg-source(1):
    # NAME_VERSION.orig.tar.COMPRESSION
    wanted = [
        name for name in sizes if re.search(r"\.deb$" if binary else r"\.orig\.tar\.\w+$", name)
    ]
    if planned.returncode or len(wanted) != 1:
        raise Unavailable(
            _complaint(planned)
            or f"apt has no {'package' if binary else 'orig tarball'} of that name"
        )
    if not wanted[0].startswith(f"{package.name}_"):
        raise Unavailable(f"apt has no package {package.name}, and would bring {wanted[0]} for it")
    there = sum(left.stat().st_size for left in folder.iterdir() if left.name in sizes)
    if sum(sizes.values()) - there > files.free(folder):
        raise files.no_space(folder / wanted[0], sum(sizes.values()))
    for left in folder.iterdir():
        if left.name not in sizes and left.is_file():
            left.unlink()  # another version's
    status = ["-oAPT::Status-Fd=1"] if bar else []
    with _percent(bar, f"{package.name} (apt)") as follow:
        done = process.run(
            ["apt-get", *options, *status, *verb], cwd=folder, log=log, check=False, on_line=follow
        )
    if "cannot be authenticated" in done.output or "nauthenticated packages" in done.output:
        raise Unavailable("apt can't vouch for it (no valid signature), so it is refused")
    if _NO_ROOM.search(done.output):
        raise files.no_space(folder, sum(sizes.values()))
    path = folder / wanted[0]
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
    """Return apt's first line of the most serious kind, without its mark, "" when there is none."""
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
    """Show the progress that apt tells among its other output.

    Give the function that each line goes to.
    """
    from tqdm import tqdm

    with tqdm(desc=label, total=100, unit="%", disable=not bar, leave=False) as shown:

        def follow(line: str) -> None:
            found = re.match(r"dlstatus:\d+:([\d.]+):", line)
            if found:
                shown.update(min(100.0, float(found[1])) - shown.n)

        yield follow
