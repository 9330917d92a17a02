"""The object folder: what make is not left to believe, and what it is called with."""

from pathlib import Path

import pytest

from tasks.cache.digests import Stamps
from tasks.kbuild import make, object_folder
from tasks.kbuild.object_folder import ObjectFolder
from tasks.system.jobserver import Budget


@pytest.fixture
def folder(tmp_path: Path) -> ObjectFolder:
    (tmp_path / "obj").mkdir()
    (tmp_path / "images").mkdir()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "Makefile").write_text(
        "$(shell echo '$(MAKECMDGOALS) $(ARCH) $(WORD) $(MAKEFILES)' >> $(O)/asked)\n%: ; @:\n"
    )
    return ObjectFolder(
        tree,
        tmp_path / "obj",
        {"ARCH": "i386"},
        Budget(1),
        Stamps(tmp_path / "stamps"),
        tmp_path / "log",
    )


def written(folder: ObjectFolder, *names: str) -> dict[str, Path]:
    """Outputs that Kbuild has as they were kept."""
    images = folder.path.parent / "images"
    for name in names:
        (folder.path / name).write_text(name)
        (images / name).write_text(name)
    return {name: images / name for name in names}


def left(folder: ObjectFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir()}


def test_what_is_as_it_was_kept_stays(folder: ObjectFolder) -> None:
    folder.restore(written(folder, "vmlinux", "System.map"), also=("vmlinux.unstripped",))
    assert left(folder) == {"vmlinux", "System.map"}


@pytest.mark.parametrize("where", ["obj", "images"])
def test_what_differs_goes_alone(folder: ObjectFolder, where: str) -> None:
    outputs = written(folder, "vmlinux", "System.map")
    (folder.path.parent / where / "vmlinux").write_text("spoilt")
    folder.restore(outputs)
    assert left(folder) == {"System.map"}


def test_what_one_command_makes_goes_together(folder: ObjectFolder) -> None:
    outputs = written(folder, "vmlinux", "System.map")
    (folder.path / "vmlinux.unstripped").touch()
    outputs["System.map"].unlink()
    folder.restore(outputs, also=("vmlinux", "vmlinux.unstripped"))
    assert left(folder) == set()


def test_nothing_is_believed_once_a_kept_output_was_spoilt(folder: ObjectFolder) -> None:
    folder.restore(written(folder, "vmlinux"), spoilt=True)
    assert left(folder) == set()


@pytest.mark.parametrize(
    ("apart", "calls"),
    [
        (
            False,
            ["a b"],
        ),
        (True, ["a", "b"]),
    ],
)
def test_goals_are_asked_for_at_once_or_one_by_one(
    folder: ObjectFolder, apart: bool, calls: list[str]
) -> None:
    folder.make(["a", "b"], apart=apart, variables={"WORD": "w"}, env={"MAKEFILES": "/dev/null"})
    asked = (folder.path / "asked").read_text().splitlines()
    assert asked == [f"{goals} i386 w /dev/null" for goals in calls]


def test_a_killed_make_is_repaired_before_anything_is_judged(folder: ObjectFolder) -> None:
    (folder.path / make.RUNNING).touch()
    (folder.path / "half.o").touch()
    folder.purge()
    assert left(folder) == set()


def test_presence_is_a_file_that_the_store_can_remove(folder: ObjectFolder) -> None:
    assert not folder.present
    folder.set_present(True)
    assert folder.present
    assert (folder.path / object_folder.PRESENT).exists()
    folder.set_present(False)
    folder.set_present(False)
    assert not folder.present
