from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.kit import aptsources, run


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
