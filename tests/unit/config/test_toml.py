from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tasks.config import toml
from tasks.system.errors import PiggyError


class Leaf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int
    words: tuple[str, ...] = ()


class Tree(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    leaf: Leaf | None = None
    free: dict[str, Leaf] = {}
    rows: tuple[Leaf, ...] = ()


def refused(text: str, tmp_path: Path, kind: type = Tree) -> str:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(PiggyError) as caught:
        toml.convert(toml.read(path), kind, "x.toml")
    return caught.value.message


def test_good_data(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        'name = "n"\nleaf = { size = 2, words = ["a"] }\n[free.x]\nsize = 3\n[[rows]]\nsize = 4\n'
    )
    assert toml.convert(toml.read(path), Tree, "x") == Tree(
        "n", Leaf(2, ("a",)), {"x": Leaf(3)}, (Leaf(4),)
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = 1\nb = = 2\n", "line 2"),
        (b"a = 1\na = 2\n", "line 2"),
        (b"\xff\xfe", "is not valid TOML"),
        (b'a = "\xff"', "is not valid TOML"),
    ],
)
def test_what_is_no_toml_names_file_and_place(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(PiggyError) as caught:
        toml.read(path)
    assert str(path) in caught.value.message
    assert said in caught.value.message


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="nothing.toml does not exist"):
        toml.read(tmp_path / "nothing.toml")
    with pytest.raises(PiggyError, match="can't be read: it is no regular file"):
        toml.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('nam = "x"', "x.toml: unknown key 'nam'. Did you mean 'name'?"),
        ('name = "x"\nquite_else = 1', "x.toml: unknown key 'quite_else'."),
        (
            'name = "x"\nleaf = { size = 1, word = [] }',
            "x.toml: unknown key 'leaf.word'. Did you mean 'words'?",
        ),
        (
            'name = "x"\nfree = { good = { size = 1 }, bad = { sise = 1 } }',
            "x.toml: unknown key 'free.bad.sise'. Did you mean 'size'?",
        ),
        (
            'name = "x"\nrows = [{ size = 1 }, { size = 1, wrods = [] }]',
            "x.toml: unknown key 'rows.1.wrods'. Did you mean 'words'?",
        ),
        ("name = 5", "x.toml: Expected `str`, got `int` for 'name'"),
        (
            'name = "x"\nleaf = { size = "big" }',
            "x.toml: Expected `int`, got `str` for 'leaf.size'",
        ),
        (
            'name = "x"\nleaf = { size = true }',
            "x.toml: Expected `int`, got `bool` for 'leaf.size'",
        ),
        (
            'name = "x"\nleaf = { size = 1, words = ["a", 2] }',
            "x.toml: Expected `str`, got `int` for 'leaf.words.1'",
        ),
        (
            'name = "x"\nleaf = { size = 1, words = "a" }',
            "x.toml: Expected `array`, got `str` for 'leaf.words'",
        ),
        ('name = "x"\nfree = { "a b" = 1 }', "x.toml: Expected `object`, got `int` for 'free.a b'"),
        ('name = "x"\nleaf = {}', "x.toml: Object missing required field `size` for 'leaf'"),
        ("leaf = { size = 1 }", "x.toml: Object missing required field `name`"),
    ],
)
def test_a_wrong_key_or_type_is_named_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    assert refused(text, tmp_path) == said


def test_tables_with_free_names_at_the_top(tmp_path: Path) -> None:
    text = "[arm]\nImage = { size = 1 }\nzImage = { siz = 1 }\n"
    assert (
        refused(text, tmp_path, dict[str, dict[str, Leaf]])
        == "x.toml: unknown key 'arm.zImage.siz'. Did you mean 'size'?"
    )
    assert (
        refused('[arm]\nImage = { size = "x" }\n', tmp_path, dict[str, dict[str, Leaf]])
        == "x.toml: Expected `int`, got `str` for 'arm.Image.size'"
    )
