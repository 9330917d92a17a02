from __future__ import annotations

import pytest

from tasks.system.errors import PiggyError, nearest


def test_a_message_and_its_hint() -> None:
    assert str(PiggyError("this broke", "mend it")) == "this broke\n  hint: mend it"
    assert str(PiggyError("this broke")) == "this broke"
    assert PiggyError("x").status == 1


def test_details_are_no_hint() -> None:
    assert str(PiggyError("a", "\n    b\n    c\n")) == "a\n    b\n    c"
    assert str(PiggyError("a", " ")) == "a"
    assert str(PiggyError("a", "it said:\n  b")) == "a\n  hint: it said:\n  b"


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("kernal", ["kernel", "jobs"], " Did you mean 'kernel'?"),
        ("KERNEL", ["kernel", "jobs"], " Did you mean 'kernel'?"),
        ("image", ["Image", "zImage"], " Did you mean 'Image'?"),
        ("zzz", ["kernel", "jobs"], ""),
        ("", ["kernel"], ""),
        ("kernel", [], ""),
    ],
)
def test_the_nearest_word(word: str, known: list[str], said: str) -> None:
    assert nearest(word, known) == said


def test_known_words_may_be_any_iterable() -> None:
    assert nearest("jops", iter({"jobs": 1})) == " Did you mean 'jobs'?"
