from __future__ import annotations

from pathlib import Path

import pytest

from tasks.buildroot import config
from tasks.buildroot.config import Request
from tasks.system.errors import PiggyError

TOP = Path(__file__).parents[3]
FAKE = TOP / "tests" / "support" / "fake" / "buildroot"


def asks(text: str, name: str = "f") -> dict[str, Request]:
    return config.merge([config.parse(text, name)])


def test_the_lines_of_a_fragment() -> None:
    text = (
        '# words\n\nBR2_A=y\n# BR2_B is not set\nBR2_C="a \\" b" # optional: it may be'
        " gone\nBR2_D=3\n"
    )
    found = config.parse(text, "f")
    assert found == [
        Request("BR2_A", "y", False, "f:3"),
        Request("BR2_B", "n", False, "f:4"),
        Request("BR2_C", '"a \\" b"', True, "f:5"),
        Request("BR2_D", "3", False, "f:6"),
    ]
    assert [one.line for one in found] == [
        "BR2_A=y",
        "# BR2_B is not set",
        'BR2_C="a \\" b"',
        "BR2_D=3",
    ]


@pytest.mark.parametrize(
    "line", ["CONFIG_NET=y", "BR2_A = y", "BR2_A=yes", "BR2_A=", "export BR2_A=y", 'BR2_A="x']
)
def test_what_is_no_line(line: str) -> None:
    with pytest.raises(PiggyError, match="f:2: not a line of a Buildroot defconfig"):
        config.parse(f"BR2_B=y\n{line}\n", "f")


def test_the_later_fragment_wins_and_stands_last() -> None:
    merged = config.merge(
        [config.parse("BR2_A=y\nBR2_B=y\n", "one"), config.parse("# BR2_A is not set\n", "two")]
    )
    assert [(one.symbol, one.value, one.where) for one in merged.values()] == [
        ("BR2_B", "y", "one:2"),
        ("BR2_A", "n", "two:1"),
    ]


def test_what_did_not_take() -> None:
    values = config.read('BR2_A=y\n# BR2_B is not set\nBR2_C="x"\n# a comment\n')
    assert values == {"BR2_A": "y", "BR2_B": "n", "BR2_C": '"x"'}
    asked = asks('BR2_A=y\n# BR2_B is not set\n# BR2_GONE is not set\nBR2_C="y"\nBR2_D=y\n')
    assert [one.symbol for one in config.unmet(asked, values)] == ["BR2_C", "BR2_D"]


def test_the_identity_has_no_places_in_it() -> None:
    one = config.read('BR2_A=y\nBR2_DL_DIR="/a"\nBR2_JLEVEL=2\n')
    other = config.read('BR2_JLEVEL=8\nBR2_DL_DIR="/b"\nBR2_A=y\n')
    assert config.identity(one) == config.identity(other) == "BR2_A=y\n"
    assert config.identity({"BR2_A": "n"}) != config.identity(one)


def test_relics_are_left_out_where_they_are_optional() -> None:
    asked = asks("BR2_TOOLCHAIN_BUILDROOT_INET_RPC=y # optional\nBR2_x86_64=y\n")
    kept, dropped = config.without_legacy(asked, FAKE)
    assert list(kept) == ["BR2_x86_64"]
    assert [one.symbol for one in dropped] == ["BR2_TOOLCHAIN_BUILDROOT_INET_RPC"]
    asked = asks("BR2_TOOLCHAIN_BUILDROOT_INET_RPC=y\n")
    assert config.without_legacy(asked, FAKE) == (asked, [])


def test_why_it_did_not_take() -> None:
    missed = config.parse(
        "BR2_SYSTEM_BIN_SH_NONE=y\nBR2_STATIC_LIB=y\nBR2_GCC_VERSION_13_X=y\n", "mine"
    )
    said = config.explain(
        missed, {"BR2_INIT_NONE": "n", "BR2_SYSTEM_BIN_SH_NONE": "n"}, FAKE, "2026.02.3"
    )
    lines = said.splitlines()
    assert lines[0] == "mine:1: BR2_SYSTEM_BIN_SH_NONE=y did not take: got n"
    assert lines[1].startswith("    Config.in:")
    assert lines[1].endswith("depends on BR2_INIT_NONE")
    assert lines[2] == "    BR2_INIT_NONE is n"
    assert "    Buildroot 2026.02.3 has no such symbol. Did you mean 'BR2_STATIC_LIBS'?" in lines
    assert lines[-1].endswith("(a choice takes one of its members, or another symbol selects it)")


@pytest.mark.parametrize(
    ("kernel", "symbol"),
    [
        ((5, 10), "5_10"),
        ((5, 19), "5_10"),
        ((6, 1), "6_1"),
        ((6, 2), "6_1"),
        ((6, 12), "6_12"),
        ((7, 3), "6_12"),
    ],
)
def test_headers_match_or_precede_the_kernel(kernel: tuple[int, int], symbol: str) -> None:
    assert [one.symbol for one in config.headers(FAKE, kernel, None, None)] == [
        f"BR2_KERNEL_HEADERS_{symbol}"
    ]


def test_a_kernel_older_than_all_headers() -> None:
    with pytest.raises(PiggyError, match=r"no kernel headers as old as the kernel \(5.4\)"):
        config.headers(FAKE, (5, 4), None, None)


def test_headers_of_a_tarball() -> None:
    found = config.headers(FAKE, (6, 12), Path("/dl/linux.tar.xz"), (5, 19))
    assert [one.line for one in found] == [
        "BR2_KERNEL_HEADERS_CUSTOM_TARBALL=y",
        'BR2_KERNEL_HEADERS_CUSTOM_TARBALL_LOCATION="file:///dl/linux.tar.xz"',
        "BR2_PACKAGE_HOST_LINUX_HEADERS_CUSTOM_5_10=y",
    ]
    with pytest.raises(PiggyError, match="knows no kernel headers as old as 5.4"):
        config.headers(FAKE, (6, 12), Path("/dl/linux.tar.xz"), (5, 4))


def test_what_was_chosen_in_the_editor() -> None:
    given = {"BR2_A": "y", "BR2_B": "n", "BR2_SELECTED": "n", "BR2_DL_DIR": '"/a"', "BR2_S": '"x"'}
    edited = {"BR2_A": "n", "BR2_B": "y", "BR2_SELECTED": "y", "BR2_DL_DIR": '"/b"', "BR2_S": '"x"'}
    assert config.choices(edited, given, {"BR2_A", "BR2_B", "BR2_DL_DIR"}) == [
        "# BR2_A is not set",
        "BR2_B=y",
    ]


def test_every_shipped_fragment_can_be_read() -> None:
    paths = sorted((TOP / "configs" / "buildroot").glob("*.config"))
    assert len(paths) > 10
    for path in paths:
        assert config.parse(path.read_text(), str(path))
