"""The fragment language: accepted and refused lines, hints, and the merging of fragments."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.kconfig.fragments import (
    Request,
    Style,
    config_line,
    lines,
    merge,
    miniconfig,
    parse,
    present,
    same,
    with_included,
)
from tasks.system.errors import PiggyError


@pytest.fixture
def fragment(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(text: str | bytes, name: str = "a.config") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def values(path: Path) -> dict[str, str]:
    return {one.symbol: one.value for one in parse(path)}


def test_every_kind_of_line(fragment):
    path = fragment(
        "# a comment\n\n   # an indented one\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_C=n\n# CONFIG_D is not"
        ' set\nCONFIG_E=12\nCONFIG_F=-3\nCONFIG_G=0xC0fe\nCONFIG_H=""\nCONFIG_I="a \\"b\\" # c'
        ' \\\\"\nCONFIG_J=34c\n#CONFIG_OFF=y\n# CONFIG_OFF=y\nCONFIG_MPC8xx=y'
    )
    assert values(path) == {
        "A": "y",
        "B": "m",
        "C": "n",
        "D": "n",
        "E": "12",
        "F": "-3",
        "G": "0xC0fe",
        "H": '""',
        "I": '"a \\"b\\" # c \\\\"',
        "J": "34c",
        "MPC8xx": "y",
    }
    assert parse(path)[3] == Request("D", "n", False, path, 7)


def test_comments_at_the_end_of_a_line_and_the_optional_mark(fragment):
    path = fragment(
        "CONFIG_A=y # why\nCONFIG_B=y  # optional\n# CONFIG_C is not set\t# optional: new in 6.6\n"
        'CONFIG_D="x"  # not optional\nCONFIG_E="#"\nCONFIG_F=1  # optionally so\n'
    )
    assert {one.symbol: one.optional for one in parse(path)} == {
        "A": False,
        "B": True,
        "C": True,
        "D": False,
        "E": False,
        "F": False,
    }
    assert values(path)["E"] == '"#"'


def test_line_ends_and_marks_of_other_editors(fragment):
    assert values(fragment(b"\xef\xbb\xbfCONFIG_A=y\r\n# CONFIG_B is not set\r\n\r\n")) == {
        "A": "y",
        "B": "n",
    }
    assert values(fragment('# umlauts: ä\x0b\u2028 CONFIG_A=y\nCONFIG_B="ä"\n')) == {"B": '"ä"'}
    assert values(fragment("")) == {}


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("CONFIG_X = y", "CONFIG_X=y"),
        ("CONFIG_X= y", "CONFIG_X=y"),
        ("CONFG_X=y", "CONFIG_X=y"),
        ("CONFIGX=y", "CONFIG_CONFIGX=y"),
        ("X=y", "CONFIG_X=y"),
        ("NET_VENDOR=y", "CONFIG_NET_VENDOR=y"),
        ("config_x_y=y", "CONFIG_X_Y=y"),
        ("  CONFIG_X=y", "CONFIG_X=y"),
        ("export CONFIG_X=y", "CONFIG_X=y"),
        ("CONFIG_X:=y", "CONFIG_X=y"),
        ("CONFIG_X=Y", "CONFIG_X=y"),
        ("CONFIG_X=yes", "CONFIG_X=y"),
        ("CONFIG_X=module", "CONFIG_X=m"),
        ("CONFIG_X=off", "CONFIG_X=n"),
        ("CONFIG_X=", "CONFIG_X=n"),
        ("CONFIG_X=y# comment", "CONFIG_X=y"),
        ("CONFIG_X=y please", "CONFIG_X=y"),
        ("CONFIG_X=maybe", 'CONFIG_X="maybe"'),
        ("CONFIG_X=fff0", "CONFIG_X=0xfff0"),
        ("CONFIG_X='a'", 'CONFIG_X="a"'),
        ('CONFIG_X="abc', 'CONFIG_X="abc"'),
        ('CONFIG_X="abc\\', 'CONFIG_X="abc"'),
        ('CONFIG_X="a" b"', 'CONFIG_X="a"'),
        ("CONFIG_X is not set", "# CONFIG_X is not set"),
        ("#CONFIG_X is not set", "# CONFIG_X is not set"),
        ("  # CONFIG_X is not set", "# CONFIG_X is not set"),
        ("# CONFIG_X  is not  set", "# CONFIG_X is not set"),
        ("# CONFIG_X is not set because of Y", "# CONFIG_X is not set"),
        ("# config_x is unset", "# CONFIG_X is not set"),
    ],
)
def test_a_wrong_line_names_the_place_and_what_was_meant(fragment, line, meant):
    path = fragment(f"CONFIG_A=y\n{line}\n")
    with pytest.raises(PiggyError) as caught:
        parse(path)
    assert caught.value.message.startswith(f"{path}:2: not a configuration line: {line}")
    assert f"did you mean '{meant}'?" in caught.value.hint


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "CONFIG_=y",
        "CONFIG_A-B=y",
        "=y",
        'CONFIG_X="a\x01b"',
        "CONFIG_X=y\0",
        "[section]",
        "CONFIG_X",
    ],
)
def test_a_line_that_means_nothing_gets_the_rules(fragment, line):
    with pytest.raises(PiggyError, match="a.config:1: not a configuration line") as caught:
        parse(fragment(line))
    assert "CONFIG_NAME=value" in caught.value.hint
    assert "\0" not in caught.value.message
    assert "\x01" not in caught.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path, fragment):
    with pytest.raises(PiggyError, match="none.config can't be read: No such file"):
        parse(tmp_path / "none.config")
    with pytest.raises(PiggyError, match="can't be read: it is no regular file"):
        parse(tmp_path)
    with pytest.raises(PiggyError, match=r"a\.config:2: not UTF-8"):
        parse(fragment(b"CONFIG_A=y\n# \xff\n"))


def test_twice_in_one_fragment(fragment):
    with pytest.raises(PiggyError, match=r"a\.config:3: CONFIG_A=n contradicts line 1, CONFIG_A=y"):
        parse(fragment("CONFIG_A=y\nCONFIG_B=y\n# CONFIG_A is not set\n"))
    assert parse(fragment("CONFIG_A=0x10  # optional\nCONFIG_A=0x0010\n"))[0].optional is False


def test_the_later_fragment_wins_and_that_is_noted(fragment):
    base = fragment("CONFIG_HZ_100=y\nCONFIG_A=y\nCONFIG_B=y\n", "base.config")
    own = fragment(
        "# CONFIG_A is not set\nCONFIG_HZ_1000=y\n# CONFIG_HZ_100 is not set\nCONFIG_B=y\n",
        "own.config",
    )
    merged = merge([base, own])
    assert [(one.symbol, one.value) for one in merged.requests.values()] == [
        ("B", "y"),
        ("A", "n"),
        ("HZ_1000", "y"),
        ("HZ_100", "n"),
    ]
    assert merged.requests["B"].origin_path == base
    assert merged.notes == (
        f"{own}:1 overrides {base}:2: CONFIG_A=n instead of CONFIG_A=y",
        f"{own}:3 overrides {base}:1: CONFIG_HZ_100=n instead of CONFIG_HZ_100=y",
    )


def test_required_beats_optional_for_the_same_value(fragment):
    soft, hard = fragment("CONFIG_A=y # optional\n", "soft"), fragment("CONFIG_A=y\n", "hard")
    for order in ([soft, hard], [hard, soft]):
        merged = merge(order)
        assert merged.requests["A"].optional is False
        assert merged.notes == ()


def test_miniconfig_is_what_kconfig_reads(fragment):
    path = fragment(
        'CONFIG_A=y  # why\n# CONFIG_B is not set # optional\nCONFIG_C=n\nCONFIG_D="x # y"  # z\n'
    )
    text = miniconfig(merge([path]))
    assert text == (
        f"# from {path}:1\nCONFIG_A=y\n# from {path}:2\n# CONFIG_B is not set\n"
        f'# from {path}:3\n# CONFIG_C is not set\n# from {path}:4\nCONFIG_D="x # y"\n'
    )
    assert miniconfig(merge([path])) == text
    assert miniconfig(merge([])) == ""


def test_a_file_name_cannot_smuggle_a_line_into_the_miniconfig(fragment):
    path = fragment("CONFIG_A=y\n", "x\nCONFIG_B=y")
    assert [
        line for line in miniconfig(merge([path])).splitlines() if not line.startswith("# from ")
    ] == ["CONFIG_A=y"]


@pytest.mark.parametrize(
    ("asked", "got", "equal"),
    [
        ("n", "", True),
        ("y", "", False),
        ('""', "", True),
        ("0", "", False),
        ("y", "m", False),
        ("m", "y", False),
        ("0x0010", "0x10", True),
        ("0XFF", "0xff", True),
        ("34c", "0x34c", True),
        ("0x34c", "34c", True),
        ("10", "0x10", True),
        ("12", "13", False),
        ("012", "12", True),
        ("-5", "-5", True),
        ('"a\\"b"', '"a\\"b"', True),
        ('"a\\b"', '"ab"', True),
        ('"y"', "y", False),
        ("1", '"1"', False),
        ("n", "0", False),
        ("y", "0x1", False),
        ('"a"', '"A"', False),
    ],
)
def test_values_that_mean_the_same(asked, got, equal):
    assert same(asked, got) is equal


def test_the_line_for_a_value():
    assert config_line("A", "n") == "# CONFIG_A is not set"
    assert config_line("A", '"x"') == 'CONFIG_A="x"'
    assert config_line("A", "fff0") == "CONFIG_A=0xfff0"


@pytest.mark.parametrize(
    "line",
    [
        "#xCONFIG_A is not set",  # Kconfig's conf skips any one character after the #
        "##CONFIG_A is not set",
        "# CONFIG_A-B is not set",
        "# CONFIG_\u00c4 is not set",
        "\x0c# CONFIG_A is not set",
        "\ufeff# CONFIG_A is not set",
        "CONFIG_A=y\x0c",
        "CONFIG_A=y\x0b",
        "CONFIG_A=y\u00a0",
        "CONFIG_A=\uff11",
        "CONFIG_A=y\r\r",
        "CONFIG_A=y\rCONFIG_B=y",
    ],
)
def test_what_only_looks_like_a_line_is_named(fragment, line):
    path = fragment(f"CONFIG_Z=y\n{line}\n")
    with pytest.raises(PiggyError, match=r"a\.config:2: not a configuration line") as caught:
        parse(path)
    assert "CONFIG_NAME=value" in caught.value.hint


def test_blanks_and_page_breaks(fragment):
    assert values(
        fragment("CONFIG_A=y \t\nCONFIG_N=12 \n\x0c\n \t\n# CONFIG_B is not set \nCONFIG_C=m")
    ) == {"A": "y", "N": "12", "B": "n", "C": "m"}


@pytest.mark.parametrize(
    "text",
    [
        b"# f\xfcr\n",
        b'CONFIG_A="f\xfcr"\n',
        b"CONFIG_B=y\n# f\xfcr\n",
        "CONFIG_A=y".encode("utf-16"),
    ],
)
def test_text_in_another_encoding_names_the_line(fragment, text):
    path = fragment(text)
    with pytest.raises(PiggyError) as caught:
        parse(path)
    line = text.count(b"\n", 0, text.index(b"\xfc")) + 1 if b"\xfc" in text else 1
    assert caught.value.message == f"{path}:{line}: not UTF-8 text"


def test_what_is_no_regular_file_is_refused_and_a_link_to_one_is_not(tmp_path, fragment):
    (tmp_path / "link.config").symlink_to(fragment("CONFIG_A=y\n"))
    assert values(tmp_path / "link.config") == {"A": "y"}
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, said in (
        ("pipe", "it is no regular file"),
        ("zero", "it is no regular file"),
        ("dangling", "it is a link to nothing"),
    ):
        with pytest.raises(PiggyError, match=f"{name} can't be read: {said}"):
            parse(tmp_path / name)


def test_a_fragment_named_as_optional(fragment):
    hard, soft = (
        fragment("CONFIG_A=y\nCONFIG_B=y\n", "hard"),
        fragment("CONFIG_A=y\nCONFIG_B=m\nCONFIG_C=y\n", "soft"),
    )
    merged = merge([hard, soft], {soft})
    assert {name: (one.value, one.optional) for name, one in merged.requests.items()} == {
        "A": ("y", False),
        "B": ("m", True),
        "C": ("y", True),
    }


def test_other_trees_write_it_with_another_prefix():
    text = (
        "# HAVE_X is not set\nUCLIBC_A=y # optional\n# words that is not set in"
        " stone\nCONFIG_686=y\n"
    )
    assert [(one.symbol, one.value, one.optional) for one in lines(text, Path("u"), Style(""))] == [
        ("HAVE_X", "n", False),
        ("UCLIBC_A", "y", True),
        ("CONFIG_686", "y", False),
    ]
    for line in ("CONFIG_A=y", "# BR2_A is unset", "BR2_A = y"):
        with pytest.raises(PiggyError, match="b:1: not a configuration line"):
            list(lines(line, Path("b"), Style("", "BR2_")))


def test_the_users_own_fragment_is_last_even_as_a_link_to_nothing(tmp_path: Path) -> None:
    first, own = tmp_path / "first", tmp_path / "own"
    assert present([first], own) == (first,)
    own.symlink_to("nowhere")
    assert present([first], own) == (first, own)


def test_included_fragments_come_before(tmp_path: Path) -> None:
    for name, text in {
        "base": "CONFIG_A=y\n",
        "small": '#include "base.config"  # first\nCONFIG_B=y\n',
        "smaller": '#include "small.config"\n#include "base.config"\nCONFIG_A=n\n',
    }.items():
        (tmp_path / f"{name}.config").write_text(text)

    def found(*names: str) -> list[str]:
        paths = with_included(tmp_path / f"{name}.config" for name in names)
        return [path.stem for path in paths]

    assert found("smaller") == ["base", "small", "smaller"]
    assert found("base", "smaller") == ["base", "small", "smaller"]
    assert found("smaller", "base") == ["base", "small", "smaller", "base"]
    merged = merge(with_included([tmp_path / "smaller.config"]))
    assert {name: one.value for name, one in merged.requests.items()} == {"A": "n", "B": "y"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('\n#include "gone.config"\n', "a.config:2: there is no file"),
        ('#include "a.config"\n', "a.config, which includes it"),
    ],
)
def test_an_include_that_leads_nowhere(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.config").write_text(text)
    with pytest.raises(PiggyError) as caught:
        with_included([tmp_path / "a.config"])
    assert said in caught.value.message


@pytest.mark.parametrize(
    "line",
    [
        '# include "a.config"',
        '#include "sub/a.config"',
        "#include <a.config>",
        ' #include "a.config"',
    ],
)
def test_almost_an_include(tmp_path: Path, line: str) -> None:
    """It would be a comment to Kconfig, and nothing would be included."""
    (tmp_path / "a.config").write_text("CONFIG_A=y\n")
    (tmp_path / "b.config").write_text(f"# about\n{line}\n")
    with pytest.raises(PiggyError, match=r"b\.config:2: not a line '#include'"):
        with_included([tmp_path / "b.config"])
    (tmp_path / "b.config").write_text("# include what is needed\n#includes\n")
    with_included([tmp_path / "b.config"])
