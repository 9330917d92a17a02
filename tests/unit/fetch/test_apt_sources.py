from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.config import pins
from tasks.fetch import apt_sources
from tasks.fetch.download import Unavailable
from tasks.system import process


@pytest.mark.parametrize(
    ("line", "made"),
    [
        (
            "deb http://a/debian stable main",
            ["deb [{t}] http://a/debian stable main", "deb-src [{t}] http://a/debian stable main"],
        ),
        (
            "  deb\thttp://a/debian  stable main # note",
            [
                "deb [{t}] http://a/debian  stable main",
                "deb-src [{t}] http://a/debian  stable main",
            ],
        ),
        ("deb-src http://a/debian stable main", ["deb-src [{t}] http://a/debian stable main"]),
        (
            "deb [arch=amd64,i386 signed-by=/k.gpg] http://a stable main",
            [
                "deb [arch=amd64,i386 signed-by=/k.gpg {t}] http://a stable main",
                "deb-src [arch=amd64,i386 signed-by=/k.gpg {t}] http://a stable main",
            ],
        ),
        (
            (
                "deb [ trusted = yes Allow-Insecure=yes allow-weak=yes arch = amd64 target-=x ]"
                " http://a ./"
            ),
            ["deb [arch=amd64 {t}] http://a ./", "deb-src [arch=amd64 {t}] http://a ./"],
        ),
        ("deb [trusted+=yes]http://a ./", ["deb [{t}] http://a ./", "deb-src [{t}] http://a ./"]),
        ("deb cdrom:[Debian 12]/ stable main", []),
        ("# deb http://a/debian stable main", []),
        ("", []),
        ("debris http://a", []),
    ],
)
def test_lines(line: str, made: list[str]) -> None:
    expected = "".join(one.format(t="target=Packages,Sources") + "\n" for one in made)
    assert apt_sources.lines(line) == expected


def test_a_source_that_is_given_twice_comes_once() -> None:
    assert apt_sources.lines("deb http://a s m\ndeb-src http://a s m\n").count("\n") == 2


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
Suites: ./

Types: deb-src
URIs: http://c
Suites: ./
"""
    assert (
        apt_sources.paragraphs(text)
        == """Types: deb deb-src
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
Suites: ./

Types: deb-src
Targets: Packages Sources
URIs: http://c
Suites: ./
"""
    )


# Spellings by which apt would trust more: sources.list(5); quotes and %-escapes as ParseQuotedWord
# of apt reads them.
WEAK = [
    "trusted=yes",
    '"trusted"=yes',
    "[%74rusted=yes",
    "trusted+=yes",
    "trusted-=no",
    "Trusted=yes",
    "TRUSTED = yes",
    "'trusted'=yes",
    "trus%74ed=yes",
    "check-valid-until=no",
    "check-date=no",
    "date-max-future=99999999",
    "valid-until-max=0",
    "valid-until-min=99999999",
    "allow-insecure=yes",
    "allow-weak=yes",
    "inrelease-path=x",
    "allow-downgrade-to-insecure=yes",
    "pdiffs=no",
    "lang=en",
    "targets=All",
    "arch",
    "by-hash=%79es",
    "new=yes",
]


@pytest.mark.parametrize("option", WEAK)
def test_only_known_options_pass_in_a_line(option: str) -> None:
    told: list[str] = []
    made = apt_sources.lines(
        f"deb [signed-by=/k.gpg {option.lstrip('[')}] http://a s main", told.append
    )
    if option == "arch":
        assert (made, told) == ("", [f"the line 'deb [signed-by=/k.gpg {option}] http://a s main'"])
        return
    assert made.splitlines()[0] == "deb [signed-by=/k.gpg target=Packages,Sources] http://a s main"
    assert told == [option.lstrip("[").replace(" ", "")]


@pytest.mark.parametrize(
    "line",
    [
        'deb ["signed-by"=/k.gpg] http://a s main',
        "deb [%73igned-by=/k.gpg] http://a s main",
        "deb [Signed-By=/k.gpg] http://a s m",
        "deb [signed-by+=/k.gpg] http://a s m",
        "deb [signed-by=/k.gpg signed-by=/l.gpg] http://a s m",
        'deb [signed-by="/k.gpg"] http://a s m',
        "deb [signed-by=] http://a s m",
        'deb ["arch"=amd64] http://a s m',
        "deb [arch=%61md64] http://a s m",
        'deb [signed-by="/a]b" trusted=yes] http://a s m',
        "deb [] [trusted=yes] http://a s m",
        'deb "http://a" s m',
        "deb http://a 's t' m",
        "deb http://a",
        "deb [trusted=yes http://a s m",
        "deb http://a s m\x1b[2J",
        "deb http://a s \x0cdeb [trusted=yes] http://b s m",
    ],
)
def test_a_line_that_can_not_be_read_with_certainty_is_not_used(line: str) -> None:
    told: list[str] = []
    assert apt_sources.lines(line, told.append) == ""
    assert told == [f"the line '{line}'"]


def test_a_comment_ends_at_its_line() -> None:
    assert (
        apt_sources.lines(
            "# x\x0cdeb http://a s m\x85deb http://b s m\u2028deb http://c s m\rdeb http://d s m"
        )
        == ""
    )


def test_what_else_is_good_in_a_line() -> None:
    for line in (
        "deb [arch+=i386 arch-=amd64 by-hash=no] mirror+file:/etc/m.txt s main non-free/x",
        "deb copy:/a ./",
        "deb [signed-by=/k.gpg,0123456789ABCDEF!] http://[::1]:80/debian/%7e $(ARCH)/",
    ):
        told: list[str] = []
        words = line.split("] ", 1)[-1].removeprefix("deb ")
        assert apt_sources.lines(line, told.append).splitlines()[0].endswith(f"] {words}")
        assert told == []


@pytest.mark.parametrize(
    "field",
    [
        "Trusted: yes",
        "TRUSTED: yes",
        "Trusted-Add: yes",
        "Check-Valid-Until: no",
        "Check-Date: no",
        "Date-Max-Future: 9999999",
        "Allow-Insecure: yes",
        "Allow-Weak: yes",
        "X-Any: thing",
        "Valid-Until-Min: 99999",
        "Allow-Downgrade-To-Insecure: yes",
        "InRelease-Path: x",
        "Languages: en",
        "Snapshot: yes",
    ],
)
def test_only_known_fields_pass_in_a_paragraph(field: str) -> None:
    told: list[str] = []
    good = "Types: deb\nURIs: http://a\nSuites: ./\nSigned-By: /k.gpg"
    assert (
        apt_sources.paragraphs(f"{good}\n{field}\n more\n", told.append)
        == good.replace("deb\n", "deb deb-src\nTargets: Packages Sources\n", 1) + "\n"
    )
    assert told == [f"'{field}'"]


@pytest.mark.parametrize(
    "change",
    [
        "Signed-By: /l.gpg",
        '"Signed-By": /k.gpg',
        "Signed-By-Add: /k.gpg",
        "Signed-By : /k.gpg",
        "%53igned-By: /k.gpg",
        "nonsense",
        "Types: deb",
        "URIs: http://b",
        "Architectures: %61",
        "Enabled: n o\x1b",
        "Components: a b\x0bc\x1b",
        " \x1b",
        "Trusted : yes",
        ": x",
        "Components: a\x85b",
        "Enabled:\x0c no",
        "By-Hash: maybe",
        "Suites-Add: a",
        "Architectures:",
    ],
)
def test_a_paragraph_that_can_not_be_read_with_certainty_is_not_used(change: str) -> None:
    told: list[str] = []
    made = apt_sources.paragraphs(
        f"Types: deb\nURIs: http://a\nSuites: ./\nSigned-By: /k.gpg\n{change}\n\nTypes: deb\n"
        "URIs: http://c\nSuites: ./\n",
        told.append,
    )
    if change == "Suites-Add: a":
        assert told == ["'Suites-Add: a'"]
        return
    assert made == "Types: deb deb-src\nTargets: Packages Sources\nURIs: http://c\nSuites: ./\n"
    assert len(told) == 1
    assert told[0].startswith("the paragraph with '")


def test_a_line_of_spaces_does_not_cut_the_keys_off() -> None:
    text = "Types: deb\nURIs: http://a\nSuites: ./\n \t\nSigned-By: /k.gpg\r\n"
    assert "Signed-By: /k.gpg" in apt_sources.paragraphs(text)


def test_what_is_left_out_is_said_once_and_without_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = tmp_path / "main.list"
    main.write_text(
        "deb [trusted=yes] http://u:secret@a s m\ndeb [trusted=yes] http://u:secret@b s m\n"
        "deb ['arch'=x\x1b] http://u:secret@c s m\n"
    )
    done = process.Completed(("apt-config",), 0, f"MAIN='{main}'\nPARTS='{tmp_path}/none'\n", 0)
    monkeypatch.setattr(process, "run", lambda *args, **options: done)
    assert "http://u:secret@a s m" in apt_sources.private_copies()["00-main.list"]  # apt needs it
    said = capsys.readouterr().out
    assert (
        said.strip() == f"apt                {main}: not in our copy: trusted=yes, the line 'deb"
        " ['arch'=x\\x1b] "
        "http://c s m'"
    )


def test_nothing_stays_nothing() -> None:
    assert apt_sources.paragraphs("# only a comment\n\n") == ""


@pytest.mark.skipif(not shutil.which("apt-config"), reason="apt is not installed")
def test_which_files_these_are_is_asked_of_apt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    config.write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/main.list";\nDir::Etc::sourceparts "{parts}";\n'
    )
    real = process.clean_env
    monkeypatch.setattr(
        process, "clean_env", lambda extra=None: {**real(extra), "APT_CONFIG": str(config)}
    )
    copies = apt_sources.private_copies()
    assert sorted(copies) == ["00-main.list", "a.sources", "b.list"]
    assert "http://main" in copies["00-main.list"]


@pytest.fixture
def bookworm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt_sources, "codename", lambda: "bookworm")


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


@pytest.mark.parametrize(
    ("suite", "uri"),
    [
        ("bullseye", "http://a/debian"),
        ("sid", "http://a/debian"),
        ("bullseye-updates", "http://a/debian"),
        ("trixie-backports", "http://a/debian"),
        ("bullseye-security", "http://a/debian-security"),
    ],
)
@pytest.mark.usefixtures("bookworm")
def test_another_suite_is_looked_for_where_the_systems_own_is(suite: str, uri: str) -> None:
    copies = {"x.sources": apt_sources.paragraphs(SYSTEM)}
    made = apt_sources.of_suite(copies, suite)["x.sources"]
    keys = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDME\nArchitectures: amd64\n"
    assert made == (
        f"Types: deb deb-src\nTargets: Packages Sources\nURIs: {uri}\nSuites: {suite}\nComponents:"
        " main\n" + ("" if "security" in suite else keys)
    )


@pytest.mark.usefixtures("bookworm")
def test_another_suite_from_one_line_sources() -> None:
    copies = {
        "00-main.list": apt_sources.lines(
            "deb [signed-by=/k.gpg trusted=yes] http://a/debian bookworm main contrib\ndeb"
            " http://a/debian bookworm-updates main\ndeb http://s/debian bookworm-security/"
            " main\ndeb http://vendor bookworm stable\ndeb http://flat ./\n"
        ),
        "v.list": apt_sources.lines("deb http://v stable main"),
    }
    options = "signed-by=/k.gpg target=Packages,Sources"
    assert apt_sources.of_suite(copies, "sid") == {
        "00-main.list": (
            f"deb [{options}] http://a/debian sid main\ndeb-src [{options}] http://a/debian sid"
            " main\n"
        )
    }
    assert apt_sources.of_suite(copies, "sid-security")["00-main.list"].startswith(
        "deb [target=Packages,Sources] http://s/debian sid-security main\n"
    )


def test_a_system_that_names_its_suite_by_what_it_is_now(bookworm: None) -> None:
    copies = {"a.list": apt_sources.lines("deb http://a unstable main")}
    assert "http://a bullseye main" in apt_sources.of_suite(copies, "bullseye")["a.list"]


@pytest.mark.parametrize(
    "text", ["", "deb http://a jammy main", "deb http://a bookworm stable", "deb http://a ./"]
)
def test_a_system_without_sources_of_its_own_release(bookworm: None, text: str) -> None:
    with pytest.raises(
        Unavailable, match="name no archive of its own release bookworm, which 'sid' would be"
    ):
        apt_sources.of_suite({"a.list": apt_sources.lines(text)}, "sid")


def test_a_system_that_tells_no_code_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> dict[str, str]:
        raise OSError("no os-release")

    monkeypatch.setattr(pins.platform, "freedesktop_os_release", missing)
    assert apt_sources.codename() == ""
    with pytest.raises(Unavailable, match="of its own release, which"):
        apt_sources.of_suite({}, "sid")
