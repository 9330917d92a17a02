"""Requests compared with the resulting configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.kconfig.dotconfig import differences, parse_config, plain, read_config, unmet
from tasks.kconfig.fragments import merge
from tasks.system.errors import PiggyError

CONFIG = """#
# Automatically generated file; DO NOT EDIT.
# Linux/i386 6.1.192 Kernel Configuration
#
CONFIG_CC_VERSION_TEXT="gcc (Debian 12.2.0-14) 12.2.0"
CONFIG_A=y
# CONFIG_B is not set
CONFIG_M=m
CONFIG_START=0x100000
CONFIG_S="a \\"b\\""
CONFIG_EMPTY=

# end of it
"""


def test_a_config_is_read_as_it_stands():
    assert parse_config(CONFIG) == {
        "CC_VERSION_TEXT": '"gcc (Debian 12.2.0-14) 12.2.0"',
        "A": "y",
        "B": "n",
        "M": "m",
        "START": "0x100000",
        "S": '"a \\"b\\""',
        "EMPTY": "",
    }


def test_bytes_that_are_no_utf8_do_not_disturb(tmp_path: Path):
    path = tmp_path / ".config"
    path.write_bytes(b'CONFIG_S="\xff"\r\nCONFIG_A=y\r\n')
    assert read_config(path)["A"] == "y"


def test_a_missing_or_cut_file_is_an_error(tmp_path: Path):
    with pytest.raises(PiggyError, match=r"\.config can't be read: No such file"):
        read_config(tmp_path / ".config")
    (tmp_path / ".config").write_text("CONFIG_A=y\nCONFIG_FO")
    with pytest.raises(PiggyError, match=r"\.config:2: not a line"):
        read_config(tmp_path / ".config")


def test_unmet_requests_in_order(tmp_path: Path):
    path = tmp_path / "f"
    path.write_text(
        "CONFIG_Z=y\nCONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_GONE is not"
        ' set\nCONFIG_M=y\nCONFIG_START=0x0100000\nCONFIG_S="a \\"b\\""\nCONFIG_T="t" # optional\n#'
        " CONFIG_A2 is not set\nCONFIG_N=12\n"
    )
    missed = unmet(merge([path]), {**parse_config(CONFIG), "A2": "y"})
    assert [(one.request.symbol, one.got, one.request.optional) for one in missed] == [
        ("Z", "n", False),
        ("M", "m", False),
        ("T", "", True),
        ("A2", "y", False),
        ("N", "", False),
    ]
    assert plain(missed).splitlines()[0] == f"{path}:1: CONFIG_Z=y did not take: got n"
    assert plain(missed).splitlines()[2] == f'{path}:8: CONFIG_T="t" did not take: got nothing'


def test_differences_between_configurations():
    assert differences(
        {"A": "y", "B": "n", "C": "0x1"}, {"C": "0x01", "A": "m", "D": "y", "E": "n"}
    ) == ["A", "D"]
    assert differences({"B": "n"}, {}) == []
