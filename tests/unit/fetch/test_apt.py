"""apt is the real one here, on package archives of our own: folders, signed by a key of our own or
not at all."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.config.pins import Package
from tasks.fetch import apt, apt_sources
from tasks.fetch.download import Unavailable
from tasks.system import files
from tasks.system.errors import PiggyError

CONTROL = (
    "Package: tool-source\nVersion: {}\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: x\n"
)
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("apt-get", "dpkg-deb", "gpg"))),
    reason="apt, dpkg or gpg is not installed",
)
BINARY = Package("tool-source", "binary", "usr/src/tool.tar.xz")
SOURCE = Package("tool", "source")
TARBALL = b"a tarball" * 1000


@dataclass(frozen=True)
class Archive:
    """A package archive: its folder, and the GnuPG home and public key that it is signed with."""

    folder: Path
    home: Path
    key: Path

    def sources(self, extra: str = "") -> str:
        return f"Types: deb\nURIs: copy:{self.folder}\nSuites: ./\nSigned-By: {self.key}\n{extra}"

    def build(self, version: str, sign: bool = True, lie: bool = False) -> None:
        """Publish `tool` of that version, signed or not; lie: change a package after that."""
        shutil.rmtree(self.folder, ignore_errors=True)
        root = self.folder.parent / f"root-{version}"
        (root / "DEBIAN").mkdir(parents=True, exist_ok=True)
        control = CONTROL.format(version)
        (root / "DEBIAN/control").write_text(control)
        (root / "usr/src").mkdir(parents=True, exist_ok=True)
        (root / "usr/src/tool.tar.xz").write_bytes(TARBALL)
        self.folder.mkdir()
        deb = self.folder / f"tool-source_{version}_all.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-b", root, deb],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self._index(
            "Packages",
            f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {sha(deb)}\n",
        )
        orig = self.folder / "tool_1.0.orig.tar.gz"
        orig.write_bytes(TARBALL)
        files = f" {sha(orig)} {orig.stat().st_size} {orig.name}\n"
        dsc = self.folder / "tool_1.0-1.dsc"
        dsc.write_text(
            f"Format: 3.0 (quilt)\nSource: tool\nVersion: 1:1.0-1\nChecksums-Sha256:\n{files}"
        )
        self._index(
            "Sources",
            "Package: tool\nFormat: 3.0 (quilt)\nBinary: tool\nArchitecture: any\nVersion:"
            f" 1:1.0-1\nDirectory: .\nChecksums-Sha256:\n {sha(dsc)} {dsc.stat().st_size}"
            f" {dsc.name}\n{files}",
        )
        sums = "".join(
            f" {sha(path)} {path.stat().st_size} {path.name}\n"
            for path in self.folder.glob("*s*")
            if path.name.startswith(("Packages", "Sources"))
        )
        release = (
            f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S UTC', time.gmtime())}\nSHA256:\n{sums}"
        )
        (self.folder / "Release").write_text(release)
        if sign:
            self.gpg(
                "--clearsign", "-o", str(self.folder / "InRelease"), str(self.folder / "Release")
            )
        if lie:
            deb.write_bytes(deb.read_bytes()[:-1] + b"!")
            orig.write_bytes(TARBALL[:-1] + b"!")

    def _index(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))

    def gpg(self, *args: str) -> bytes:
        return subprocess.run(
            ["gpg", "--homedir", str(self.home), "--batch", "--quiet", *args],
            check=True,
            capture_output=True,
        ).stdout


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    home = tmp_path_factory.mktemp("g")
    home.chmod(0o700)
    run = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    subprocess.run(
        [*run, "--passphrase", "", "--quick-gen-key", "test <a@b.c>", "rsa2048"],
        check=True,
        capture_output=True,
    )
    key = home / "key.gpg"
    subprocess.run([*run, "-o", str(key), "--export"], check=True)
    yield home, key
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False)


@pytest.fixture
def archive(tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Archive:
    made = Archive(tmp_path / "archive", *keys)
    use(monkeypatch, made.sources())
    return made


def use(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let the system's only package source be `text` (deb822)."""
    monkeypatch.setattr(
        apt_sources,
        "private_copies",
        lambda log=None: {"test.sources": apt_sources.paragraphs(text)},
    )


def get(package: Package, state: Path) -> tuple[bytes, str]:
    with apt.fetched(package, state, log=state.with_suffix(".log")) as found:
        return found.path.read_bytes(), found.version


def log(state: Path) -> str:
    return state.with_suffix(".log").read_text()


def test_a_binary_package_and_the_tarball_in_it(archive: Archive, tmp_path: Path) -> None:
    archive.build("1:2.0-3")
    with apt.fetched(BINARY, tmp_path / "state") as found:
        assert found.version == "1:2.0-3"
        apt.tarball_in(found.path, BINARY.member, tmp_path / "out")
        with pytest.raises(Unavailable, match="does not hold usr/src/other"):
            apt.tarball_in(found.path, "usr/src/other", tmp_path / "other")
        broken = tmp_path / "broken.deb"
        broken.write_bytes(found.path.read_bytes()[:-3000])
        with pytest.raises(Unavailable, match=r"broken\.deb"):
            apt.tarball_in(broken, BINARY.member, tmp_path / "other")
    assert (tmp_path / "out").read_bytes() == TARBALL
    assert not (tmp_path / "state/files/tool-source").exists()


def test_a_source_packages_orig_tarball(archive: Archive, tmp_path: Path) -> None:
    archive.build("2.0")
    assert get(SOURCE, tmp_path / "state with spaces") == (TARBALL, "1:1.0-1")


def test_lists_are_kept_while_they_are_fresh(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.build("2.0")
    state = tmp_path / "state"
    get(BINARY, state)
    get(SOURCE, state)
    assert log(state).count(" update\n") == 1
    os.utime(state / "updated", (time.time() - 2 * apt.FRESH_SECONDS,) * 2)
    get(BINARY, state)
    assert log(state).count(" update\n") == 2
    use(monkeypatch, archive.sources("By-Hash: no\n"))
    get(BINARY, state)
    assert log(state).count(" update\n") == 3


def test_a_version_that_left_the_archive_is_looked_up_anew(
    archive: Archive, tmp_path: Path
) -> None:
    archive.build("2.0")
    get(BINARY, tmp_path / "state")
    archive.build("2.1")
    assert get(BINARY, tmp_path / "state")[1] == "2.1"
    assert log(tmp_path / "state").count(" update\n") == 2


@pytest.mark.parametrize("extra", ["", "Trusted: yes\n", "Allow-Insecure: yes\nTrusted: yes\n"])
@pytest.mark.parametrize("package", [BINARY, SOURCE])
def test_an_unsigned_archive_is_refused(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Package, extra: str
) -> None:
    archive.build("2.0", sign=False)
    use(monkeypatch, archive.sources(extra))
    with pytest.raises(Unavailable, match="not signed"):
        get(package, tmp_path / "state")


def test_what_apt_can_not_authenticate_is_refused(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.build("2.0", sign=False)
    monkeypatch.setitem(
        apt._SETTINGS, "Acquire::AllowInsecureRepositories", "true"
    )  # as if apt took its index
    for package in (BINARY, SOURCE):
        with pytest.raises(Unavailable, match="apt can't vouch for it"):
            get(package, tmp_path / "state")


def test_another_key_is_refused(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.build("2.0")
    empty = tmp_path / "empty.gpg"
    empty.write_bytes(b"")
    use(monkeypatch, archive.sources().replace(str(archive.key), str(empty)))
    with pytest.raises(Unavailable):
        get(BINARY, tmp_path / "state")


@pytest.mark.parametrize("package", [BINARY, SOURCE])
def test_a_package_that_is_not_what_the_index_says_is_refused(
    archive: Archive, tmp_path: Path, package: Package
) -> None:
    archive.build("2.0", lie=True)
    with pytest.raises(Unavailable, match="Hash Sum mismatch|Failed to fetch"):
        get(package, tmp_path / "state")


@pytest.mark.parametrize(
    ("package", "told"),
    [
        (Package("nonesuch", "binary", "x"), "Unable to locate package nonesuch"),
        (Package("nonesuch", "source"), "Unable to find a source package for nonesuch"),
        (Package("tool-source", "source"), "source package"),
    ],
)
def test_a_package_that_is_not_there(
    archive: Archive, tmp_path: Path, package: Package, told: str
) -> None:
    archive.build("2.0")
    with pytest.raises(Unavailable, match=told):
        get(package, tmp_path / "state")
    assert log(tmp_path / "state").count(" update\n") == 1


def test_an_archive_that_is_gone_is_told(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="Unable to locate package.*'apt-get update' said"):
        get(BINARY, tmp_path / "state")


def test_the_systems_hooks_do_not_run(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.build("2.0")
    hooked = tmp_path / "hooked.conf"
    hooked.write_text(f'APT::Update::Post-Invoke {{ "touch {tmp_path}/ran"; }};\n')
    real = apt.process.clean_env
    monkeypatch.setattr(
        apt.process, "clean_env", lambda extra=None: {**real(extra), "APT_CONFIG": str(hooked)}
    )
    get(BINARY, tmp_path / "state")
    assert not (tmp_path / "ran").exists()


def test_no_room_is_told_before_apt_runs(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.build("2.0")
    monkeypatch.setattr(files, "free", lambda path: 1000)
    with pytest.raises(PiggyError, match="lists: 250.0 MB needed, 1.0 kB free"):
        get(BINARY, tmp_path / "state")
    monkeypatch.undo()


def test_no_apt_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="this host has no apt"):
        get(BINARY, tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_tarball_has_to_be_a_file_of_the_package(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(CONTROL.format("1"))
    (root / "usr").mkdir()
    (root / "usr/t.tar").symlink_to("/etc/passwd")
    subprocess.run(
        ["dpkg-deb", "-b", root, tmp_path / "x.deb"], check=True, stdout=subprocess.DEVNULL
    )
    with pytest.raises(Unavailable, match=r"x\.deb does not hold usr/t\.tar"):
        apt.tarball_in(tmp_path / "x.deb", "usr/t.tar", tmp_path / "out")
    assert not tarfile.is_tarfile(tmp_path / "x.deb")
    assert not (tmp_path / "out").exists()


def pooled(archive: Archive) -> str:
    """Move the archive's package into a pool of several suites; return its entry in their lists."""
    archive.build("2.0")
    deb = next(archive.folder.glob("*.deb"))
    pool = archive.folder / "pool"
    pool.mkdir()
    deb.rename(pool / deb.name)
    return (archive.folder / "Packages").read_text().replace("Filename: ./", "Filename: pool/")


def publish(archive: Archive, **suites: str) -> None:
    """Publish and sign suites, each with its list of binary packages."""
    asked = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    )
    architecture = asked.stdout.strip()
    for suite, text in suites.items():
        index = archive.folder / "dists" / suite / "main" / f"binary-{architecture}" / "Packages"
        index.parent.mkdir(parents=True)
        index.write_text(text)
        home = archive.folder / "dists" / suite
        (home / "Release").write_text(
            f"Suite: {suite}\nCodename: {suite}\nArchitectures: {architecture}\nComponents:"
            " main\nNotAutomatic: yes\nDate:"
            f" {time.strftime('%a, %d %b %Y %H:%M:%S UTC', time.gmtime())}\nSHA256:\n {sha(index)}"
            f" {index.stat().st_size} {index.relative_to(home)}\n"
        )
        archive.gpg("--clearsign", "-o", str(home / "InRelease"), str(home / "Release"))


def test_a_package_of_another_suite(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive with two suites, signed; the system's own sources name one of them, in which the
    package is not."""
    control = pooled(archive)
    publish(archive, mine="", other=control)
    system = (
        f"Types: deb\nURIs: copy:{archive.folder}\nSuites: mine\nComponents: main\nSigned-By:"
        f" {archive.key}\n"
    )
    use(monkeypatch, system)
    monkeypatch.setattr(apt_sources, "codename", lambda: "mine")
    state = tmp_path / "state"
    with pytest.raises(Unavailable, match="Unable to locate package"):
        get(BINARY, state)
    (tmp_path / "preferences").write_text("Package: *\nPin: release n=other\nPin-Priority: -1\n")
    config = tmp_path / "apt.conf"
    config.write_text(
        f'APT::Default-Release "mine";\nDir::Etc::preferences "{tmp_path}/preferences";\n'
    )
    real = apt.process.clean_env
    monkeypatch.setattr(
        apt.process, "clean_env", lambda extra=None: {**real(extra), "APT_CONFIG": str(config)}
    )
    elsewhere = Package(BINARY.name, "binary", BINARY.member, suite="other")
    assert get(elsewhere, state)[1] == "2.0"
    lists = [path.name for path in (state / "suites/other/lists").glob("*InRelease")]
    assert len(lists) == 1
    assert lists[0].endswith("_dists_other_InRelease")
    with pytest.raises(
        Unavailable, match="there is no suite 'gone' at this server, or no longer: .* Release file"
    ):
        get(Package(BINARY.name, "binary", BINARY.member, suite="gone"), state)
    use(monkeypatch, system.replace(str(archive.key), "/dev/null"))
    with pytest.raises(Unavailable, match="not signed|NO_PUBKEY|couldn't be verified"):
        get(elsewhere, tmp_path / "new state")


def test_of_several_suites_the_newest_is_taken_and_one_is_enough(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare system names no archive of security fixes; then the suite of that name is not at the
    server."""
    control = pooled(archive)
    publish(archive, mine="", older=control.replace("Version: 2.0", "Version: 1.0"), newer=control)
    use(monkeypatch, archive.sources("Components: main\n").replace("./", "mine"))
    monkeypatch.setattr(apt_sources, "codename", lambda: "mine")
    state = tmp_path / "state"
    for suite in ("older newer", "newer newer-security"):
        assert get(Package(BINARY.name, "binary", BINARY.member, suite=suite), state)[1] == "2.0"
    folders = sorted(path.name for path in (state / "suites").iterdir())
    assert folders == ["newer+newer-security", "older+newer"]
    with pytest.raises(
        Unavailable, match="there is no suite 'gone gone-security' at this server, or no longer"
    ):
        get(Package(BINARY.name, "binary", BINARY.member, suite="gone gone-security"), state)
    with pytest.raises(
        Unavailable,
        match="Unable to locate package nonesuch; 'apt-get update' said: .*gone Release",
    ):
        get(Package("nonesuch", "binary", BINARY.member, suite="newer gone"), state)


@pytest.mark.parametrize(
    "name",
    ["tool-sour.e", "tool-source.?", "tool.source", "tool-sourc+", "tool-source+", "tool-s-"],
)
def test_a_name_is_no_pattern(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """apt takes an unknown linux-source-6.1 for a regular expression, which linux-source-6.12
    matches."""
    archive.build("2.0")
    with pytest.raises(Unavailable, match="Unable to locate package"):
        get(Package(name, "binary", BINARY.member), tmp_path / "state")
    monkeypatch.delitem(apt._SETTINGS, "APT::Cmd::Pattern-Only")  # as if apt did not know it
    with pytest.raises(
        Unavailable,
        match=r"Unable to locate|apt has no package .* would bring tool-source_2\.0_all\.deb",
    ):
        get(Package(name, "binary", BINARY.member), tmp_path / "state")
    with pytest.raises(Unavailable, match="Unable to find a source package"):
        get(Package("to.l", "source"), tmp_path / "state")


SIGNED = """-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA512
Version: none of the package's

Format: 3.0 (quilt)
Source: tool
Version: 1:1.0-1
-----BEGIN PGP SIGNATURE-----
Version: GnuPG v1

iQ
-----END PGP SIGNATURE-----
"""


@pytest.mark.parametrize("text", [SIGNED, "version:  1:1.0-1 \nSource: tool\n"])
def test_the_version_of_a_source_package_is_that_of_its_paragraph(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "tool_1.0-1.dsc").write_text(text)
    assert apt._version(tmp_path / "tool_1.0.orig.tar.gz", binary=False) == "1:1.0-1"


@pytest.mark.parametrize(
    "text", ["", "\n", "Source: tool\n", "Version:\n", SIGNED[:90], "\udcff\0", "nonsense"]
)
def test_a_dsc_without_a_version_is_no_package(text: str, tmp_path: Path) -> None:
    (tmp_path / "tool_1.0-1.dsc").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(Unavailable, match="tells no version"):
        apt._version(tmp_path / "tool_1.0.orig.tar.gz", binary=False)
