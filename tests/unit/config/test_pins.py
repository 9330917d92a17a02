from __future__ import annotations

from pathlib import Path

import pytest

from tasks.config import pins
from tasks.config.pins import Package
from tasks.system.errors import PiggyError

PROJECT = Path(__file__).resolve().parents[3]
URLS = 'urls = ["https://files.example/tool-1.2.tar.gz"]\n'
SHA256 = f'sha256 = "{"0a" * 32}"\n'
PACKAGE = 'package = { name = "tool", kind = "source", identical = true }\n'
GOOD = f'\n["tool"]\nversion = "1.2"\n{URLS}{SHA256}{PACKAGE}'


def load(folder: Path, text: str, release: str | None = "") -> dict[str, pins.Source]:
    path = folder / "sources.toml"
    path.write_text(text)
    return pins.load(path, release)


def test_the_projects_own_pins() -> None:
    sources = pins.load(PROJECT / "configs" / "sources.toml")
    assert {"linux-6.1", "linux-5.10", "linux-6.12", "busybox", "musl"} <= set(sources)
    for name, source in sources.items():
        assert source.name == name
        assert source.sha256 or source.package
        assert source.version in source.filename
        assert all(url.startswith("https://") for url in source.urls)


def test_a_good_table(tmp_path: Path) -> None:
    source = load(tmp_path, GOOD)["tool"]
    assert (source.name, source.version, source.filename) == ("tool", "1.2", "tool-1.2.tar.gz")
    assert source.package == Package("tool", "source", "", True)
    assert (source.sha256, source.outside_links) == ("0a" * 32, ())
    with pytest.raises(AttributeError):
        source.version = "1.3"  # type: ignore[misc]


def test_an_escaped_file_name_is_unescaped(tmp_path: Path) -> None:
    source = load(tmp_path, GOOD.replace("tool-1.2.tar", "tool%2B-1.2.tar"))["tool"]
    assert source.filename == "tool+-1.2.tar.gz"


def test_a_source_that_only_the_distribution_has(tmp_path: Path) -> None:
    source = load(
        tmp_path,
        """["tool"]
version = "1"
package = { name = "tool-source", kind = "binary", member = "usr/src/tool.tar.xz", suite = "sid" }
["other"]
version = "1"
package = { name = "other", kind = "source" }
""",
    )
    assert (source["tool"].filename, source["tool"].urls, source["tool"].sha256) == (
        "tool.tar.xz",
        (),
        None,
    )
    assert source["tool"].package
    assert source["tool"].package.suite == "sid"
    assert source["other"].filename == "other"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("sha256 =", "sha265 =", ["'sha265'", "Did you mean 'sha256'?"]),
        ("identical", "identicle", ["package.identicle", "Did you mean 'identical'?"]),
        ("0a0a", "0a", ["'sha256'", "64 hexadecimal digits"]),
        ("0a0a", "0A0A", ["'sha256'", "64 hexadecimal digits"]),
        ('version = "1.2"', "version = 1.2", ["'version'", "`str`", "`float`"]),
        ('version = "1.2"', 'version = "../1"', ["'version'", "letters, digits"]),
        ('version = "1.2"', 'version = "1.2\\n"', ["'version'", "letters, digits"]),
        ('version = "1.2"\n', "", ["`version`"]),
        ('["https://files.example/tool-1.2.tar.gz"]', "[]", ["`urls` and `sha256` go together"]),
        (URLS, "", ["`urls` and `sha256` go together"]),
        (SHA256, "", ["`urls` and `sha256` go together"]),
        (URLS + SHA256, "", ["only where a `package`"]),
        (URLS + SHA256 + PACKAGE, "", ["only where a `package`"]),
        ("identical = true", 'suite = "../sid"', ["'package.suite'", "lower case letters"]),
        ("identical = true", 'suite = ""', ["'package.suite'", "lower case letters"]),
        ("identical = true", 'suite = "sid  trixie"', ["'package.suite'", "lower case letters"]),
        (
            "identical = true",
            'releases = { sid = { siute = "x" } }',
            ["'package.releases.sid.siute'", "Did you mean 'suite'?"],
        ),
        (
            "identical = true",
            'releases = { sid = { name = "a*" } }',
            ["'package.releases.sid.name'", "letters, digits"],
        ),
        (
            "identical = true",
            'releases = { sid = { member = "x" } }',
            ["package", "`member` of `releases`"],
        ),
        (
            '["https://files.example/tool-1.2.tar.gz"]',
            '"https://files.example/tool-1.2.tar.gz"',
            ["'urls'", "`array`"],
        ),
        (
            "https://files",
            "ftp://files",
            ["'ftp://files.example/tool-1.2.tar.gz'", "http or https"],
        ),
        ("tool-1.2.tar.gz", "", ["'https://files.example/'"]),
        ("tool-1.2.tar.gz", "a%2F..%2F..", ["http or https"]),
        ("tool-1.2.tar.gz", ".bashrc", ["http or https"]),
        (
            "https://",
            "ht\\ntps://",
            [r"'ht\ntps://files.example/tool-1.2.tar.gz' is not the http or https address"],
        ),
        (
            "files.example",
            "files.\\u001b[2Jexample",
            [r"'https://files.\x1b[2Jexample/tool-1.2.tar.gz' is not"],
        ),
        ('"source"', '"sources"', ["'package.kind'", "sources"]),
        ('"source"', '"binary"', ["member"]),
        ('name = "tool",', 'name = "-oX=y",', ["'package.name'"]),
        ('version = "1.2"', 'version = "1.2"\nname = "other"', ["'name'"]),
        ('["tool"]', '["../tool"]', ["../tool"]),
        ('["tool"]', "tool = 1\n['x']", ["tool", "table"]),
        ("sha256 = ", "sha256 ", ["not valid TOML", "line 5"]),
    ],
)
def test_a_mistake_names_file_table_and_key(
    tmp_path: Path, old: str, new: str, told: list[str]
) -> None:
    assert old in GOOD
    with pytest.raises(PiggyError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    for word in [str(tmp_path / "sources.toml"), *told]:
        assert word in str(caught.value)
    if "TOML" not in told[0]:
        assert "tool" in str(caught.value)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("bookworm", ("tool", "a", None)),
        ("trixie", ("tool", "a", "bookworm bookworm-security")),
        ("bullseye", ("tool-1", "b", "bullseye-backports")),
        ("", ("tool", "a", "bookworm bookworm-security")),
    ],
)
def test_a_package_is_the_one_of_the_release(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    release: str,
    expected: tuple[str, str, str | None],
) -> None:
    package = (
        'package = { name = "tool", kind = "binary", member = "a", suite = "bookworm'
        ' bookworm-security", releases = { bullseye = { name = "tool-1", member = "b", suite ='
        ' "bullseye-backports" } } }\n'
    )
    text = GOOD.replace(PACKAGE, package)
    found = load(tmp_path, text, release)["tool"].package
    assert found == Package(expected[0], "binary", expected[1], suite=expected[2])
    monkeypatch.setattr(pins, "codename", lambda: release)
    assert load(tmp_path, text, None)["tool"].package == found


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_the_projects_own_pins_are_the_same_on_each_release(release: str) -> None:
    """Debian 12 has Linux 6.1, busybox 1.35 and musl 1.2.3 itself; Debian 13 has Linux 6.12."""
    known = {
        name: source.package
        for name, source in pins.load(PROJECT / "configs" / "sources.toml", release).items()
    }
    old, new = ("linux-6.1", "busybox", "musl"), ("linux-6.12",)
    for name in (*old, *new):
        package = known[name]
        assert package
        own = (name in old) == (release == "bookworm")
        assert own == (package.suite is None)
        assert (
            own
            or {"bookworm": "trixie", "trixie": "bookworm"}[release] in (package.suite or "")
            or name in new
        )


def test_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match=r"nothing\.toml"):
        pins.load(tmp_path / "nothing.toml")


def test_two_sources_can_not_share_a_file(tmp_path: Path) -> None:
    with pytest.raises(
        PiggyError, match=r'\["tool"\] and \["twin"\] are both named tool-1\.2\.tar\.gz'
    ):
        load(tmp_path, GOOD + GOOD.replace('["tool"]', '["twin"]'))
