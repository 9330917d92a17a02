"""What a guest wrote to an image is not lost when its task makes it anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.cache.digests import Stamps
from tasks.graph import aside


class Image:
    """An image that a task made once, and what is around it."""

    def __init__(self, top: Path) -> None:
        self.path, self.stamps = top / "disk.img", Stamps(top / "stamps")
        self.path.write_text("as made")
        self.known = {str(self.path): self.stamps.digest(str(self.path))}

    def make(self, text: str, fails: bool = False) -> None:
        """Do what the task does, with what it made last as it is known."""
        with aside.kept([str(self.path)], self.known, self.stamps):
            if fails:
                raise ValueError(text)
            self.path.write_text(text)

    def there(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.path.parent.glob("disk.img*")}


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


def test_what_the_task_made_itself_is_replaced(
    image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    image.make("other")
    assert image.there() == {"disk.img": "other"}
    assert capsys.readouterr().out == ""


def test_what_was_written_to_it_is_kept_and_said(
    image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, text in enumerate(("mine", "later"), 1):
        image.path.write_text(text)
        image.make("as made")
        assert f"kept as {image.path}.{number}" in capsys.readouterr().out
    assert image.there() == {"disk.img": "as made", "disk.img.1": "mine", "disk.img.2": "later"}


def test_an_image_of_which_nothing_is_known_is_kept_unless_it_is_made_again(image: Image) -> None:
    image.known = {}
    image.make("as made")
    assert image.there() == {"disk.img": "as made"}
    image.make("another")
    assert image.there() == {"disk.img": "another", "disk.img.1": "as made"}


def test_where_the_task_fails_the_image_stays(image: Image) -> None:
    image.path.write_text("mine")
    with pytest.raises(ValueError, match="no kernel"):
        image.make("no kernel", fails=True)
    assert image.there() == {"disk.img": "mine"}


def test_there_may_be_none(image: Image) -> None:
    image.path.unlink()
    image.make("first")
    assert image.there() == {"disk.img": "first"}


@pytest.mark.parametrize(
    ("made", "then"),
    [
        (None, {"disk.img": "as made", "disk.img.1": "mine"}),
        ("half", {"disk.img": "as made", "disk.img.1": "mine", "disk.img.2": "half"}),
        ("mine", {"disk.img": "as made", "disk.img.1": "mine"}),
    ],
)
def test_what_a_killed_run_left_aside_the_next_one_takes_up(
    image: Image,
    made: str | None,
    then: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Killed before or after it made another image, which the next run can't tell from a guest's;
    or after it made the same one."""
    image.path.write_text("mine")
    killed = aside.kept([str(image.path)], image.known, image.stamps)
    killed.__enter__()  # and nothing after it, as by kill -9
    if made:
        image.path.write_text(made)
    assert image.there() == {"disk.img.aside": "mine", **({"disk.img": made} if made else {})}
    image.make("as made")
    assert image.there() == then
    assert f"kept as {image.path}.1" in capsys.readouterr().out


def test_what_a_killed_run_left_aside_is_there_where_the_next_one_fails(image: Image) -> None:
    image.path.write_text("mine")
    killed = aside.kept([str(image.path)], image.known, image.stamps)
    killed.__enter__()
    with pytest.raises(ValueError, match="no kernel"):
        image.make("no kernel", fails=True)
    assert image.there() == {"disk.img": "mine"}
