from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.kit import aptsources, pins, run
from tasks.kit.download import Unavailable


@pytest.mark.parametrize(("line", "made"), [
    ("deb http://a/debian stable main", ["deb [{t}] http://a/debian stable main",
                                         "deb-src [{t}] http://a/debian stable main"]),
    ("  deb\thttp://a/debian  stable main # note", ["deb [{t}] http://a/debian  stable main",
                                                    "deb-src [{t}] http://a/debian  stable main"]),
    ("deb-src http://a/debian stable main", ["deb-src [{t}] http://a/debian stable main"]),
    ("deb [arch=amd64,i386 signed-by=/k.gpg] http://a stable main",
     ["deb [arch=amd64,i386 signed-by=/k.gpg {t}] http://a stable main",
      "deb-src [arch=amd64,i386 signed-by=/k.gpg {t}] http://a stable main"]),
    ("deb [ trusted = yes Allow-Insecure=yes allow-weak=yes arch = amd64 target-=x ] http://a ./",
     ["deb [arch=amd64 {t}] http://a ./", "deb-src [arch=amd64 {t}] http://a ./"]),
    ("deb [trusted+=yes]http://a ./", ["deb [{t}] http://a ./", "deb-src [{t}] http://a ./"]),
    ("deb cdrom:[Debian 12]/ stable main", []),
    ("# deb http://a/debian stable main", []),
    ("", []),
    ("debris http://a", []),
])
def test_lines(line: str, made: list[str]) -> None:
    expected = "".join(one.format(t="target=Packages,Sources") + "\n" for one in made)
    assert aptsources.lines(line) == expected


def test_a_source_that_is_given_twice_comes_once() -> None:
    assert aptsources.lines("deb http://a s m\ndeb-src http://a s m\n").count("\n") == 2


def test_paragraphs() -> None:
    text = """# the archive
types: deb
URIs: http://a/debian
# in between
Suites: stable
  stable-updates
Components: main
Trusted: yes
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDME
Allow-Insecure: yes
 really


Types:
 deb
 deb-src
Targets: Packages
 Translations
Enabled: no
URIs: http://b

Types: deb-src
URIs: http://c
"""
    assert aptsources.paragraphs(text) == """Types: deb deb-src
Targets: Packages Sources
URIs: http://a/debian
Suites: stable
  stable-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDME


Types: deb deb-src
Targets: Packages Sources
Enabled: no
URIs: http://b

Types: deb-src
Targets: Packages Sources
URIs: http://c
"""


def test_nothing_stays_nothing() -> None:
    assert aptsources.paragraphs("# only a comment\n\n") == ""


@pytest.mark.skipif(not shutil.which("apt-config"), reason="apt is not installed")
def test_which_files_these_are_is_asked_of_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = tmp_path / "parts.d"
    parts.mkdir()
    (tmp_path / "main.list").write_text("deb http://main s m\n")
    (parts / "a.sources").write_text("Types: deb\nURIs: http://a\nSuites: ./\n")
    (parts / "b.list").write_text("deb http://b s m\n")
    (parts / "c.list.save").write_text("deb http://c s m\n")
    (parts / "d e.list").write_text("deb http://d s m\n")
    (parts / "folder.list").mkdir()
    (parts / "empty.list").write_text("# nothing\n")
    config = tmp_path / "apt.conf"
    config.write_text(f'Dir::Etc::sourcelist "{tmp_path}/main.list";\nDir::Etc::sourceparts "{parts}";\n')
    real = run.clean_env
    monkeypatch.setattr(run, "clean_env", lambda extra=None: {**real(extra), "APT_CONFIG": str(config)})
    copies = aptsources.private_copies()
    assert sorted(copies) == ["00-main.list", "a.sources", "b.list"]
    assert "http://main" in copies["00-main.list"]


@pytest.fixture
def bookworm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aptsources, "codename", lambda: "bookworm")


SYSTEM = """Types: deb
URIs: http://a/debian
Suites: bookworm
  bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDME
Architectures: amd64

Types: deb
URIs: http://a/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://vendor/apt
Suites: bookworm
Components: stable

Enabled: no
Types: deb
URIs: http://b/debian
Suites: bookworm bookworm-backports
Components: main
"""


@pytest.mark.parametrize(("suite", "uri"), [
    ("bullseye", "http://a/debian"), ("sid", "http://a/debian"), ("bullseye-updates", "http://a/debian"),
    ("trixie-backports", "http://a/debian"), ("bullseye-security", "http://a/debian-security")])
@pytest.mark.usefixtures("bookworm")
def test_another_suite_is_looked_for_where_the_systems_own_is(suite: str, uri: str) -> None:
    copies = {"x.sources": aptsources.paragraphs(SYSTEM)}
    made = aptsources.of_suite(copies, suite)["x.sources"]
    keys = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDME\nArchitectures: amd64\n"
    assert made == (f"Types: deb deb-src\nTargets: Packages Sources\nURIs: {uri}\nSuites: {suite}\nComponents: main\n"
                    + ("" if "security" in suite else keys))


@pytest.mark.usefixtures("bookworm")
def test_another_suite_from_one_line_sources() -> None:
    copies = {"00-main.list": aptsources.lines(
        "deb [signed-by=/k.gpg trusted=yes] http://a/debian bookworm main contrib\n"
        "deb http://a/debian bookworm-updates main\ndeb http://s/debian bookworm-security/ main\n"
        "deb http://vendor bookworm stable\ndeb http://flat ./\n"), "v.list": aptsources.lines("deb http://v stable main")}
    options = "signed-by=/k.gpg target=Packages,Sources"
    assert aptsources.of_suite(copies, "sid") == {
        "00-main.list": f"deb [{options}] http://a/debian sid main\ndeb-src [{options}] http://a/debian sid main\n"}
    assert aptsources.of_suite(copies, "sid-security")["00-main.list"].startswith(
        "deb [target=Packages,Sources] http://s/debian sid-security main\n")


def test_a_system_that_names_its_suite_by_what_it_is_now(bookworm: None) -> None:
    copies = {"a.list": aptsources.lines("deb http://a unstable main")}
    assert "http://a bullseye main" in aptsources.of_suite(copies, "bullseye")["a.list"]


@pytest.mark.parametrize("text", ["", "deb http://a jammy main", "deb http://a bookworm stable", "deb http://a ./"])
def test_a_system_without_sources_of_its_own_release(bookworm: None, text: str) -> None:
    with pytest.raises(Unavailable, match="name no archive of its own release bookworm, which 'sid' would be"):
        aptsources.of_suite({"a.list": aptsources.lines(text)}, "sid")


def test_a_system_that_tells_no_code_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> dict[str, str]:
        raise OSError("no os-release")
    monkeypatch.setattr(pins.platform, "freedesktop_os_release", missing)
    assert aptsources.codename() == ""
    with pytest.raises(Unavailable, match="of its own release, which"):
        aptsources.of_suite({}, "sid")
