"""The object store against what a store may hold: it need not be what was put there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cmd_files import put

from tasks.cache.digests import Stamps, content_digest
from tasks.cache.store import Store
from tasks.cache.store_files import Output, Result
from tasks.kbuild.object_goals import TASK
from tasks.kbuild.objects import Objects


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    put(tmp_path / "obj/include/config/auto.conf", "CONFIG_A=y\n")
    put(tmp_path / "tree/kernel/a.c", "int a;\n")
    (tmp_path / "obj/source").symlink_to(tmp_path / "tree")
    store = Store(tmp_path / "store", 1 << 30)
    return Objects(
        tmp_path / "tree", tmp_path / "obj", store, Stamps(tmp_path / "stamps"), "t", "", "x86"
    )


def plant(objects: Objects, target: str, *names: str) -> None:
    """Put an object into the store, made from inputs that are all missing."""
    path = put(objects.obj.parent / "planted", "an object")
    result = Result(TASK, time.time(), {}, [Output(content_digest(path), 9, 0o644)])
    objects.store.put(objects.key(target), dict.fromkeys(names, ""), result, [path])
    objects.goals.add("vmlinux", [target])


def plant_familiar(objects: Objects, target: str) -> None:
    plant(objects, target, f"savedcmd_{target} := gcc -c -o {target} none.c", "none.c", "")


def test_an_object_is_laid(objects: Objects) -> None:
    plant_familiar(objects, "kernel/new.o")
    objects.lay("vmlinux", complete=False, prepare=None)
    assert (objects.obj / "kernel/new.o").read_text() == "an object"


@pytest.mark.parametrize(
    "target",
    [
        *("source/kernel/new.o", "source/new.o", "source/kernel/a.c", "kernel/../source/new.o"),
        *("../up.o", ".config", "/.o", "", "kernel/\0.o", f"kernel/{'x' * 5000}.o"),
    ],
)
def test_nothing_is_written_but_objects_in_the_object_folder(
    objects: Objects, tmp_path: Path, target: str
) -> None:
    """Kbuild's link `source` leads to the tree."""
    before = {path: path.read_bytes() for path in (tmp_path / "tree").rglob("*.*")}
    plant_familiar(objects, target)
    objects.lay("vmlinux", complete=False, prepare=None)
    assert {path: path.read_bytes() for path in (tmp_path / "tree").rglob("*.*")} == before
    assert objects.laid == {}
    assert not (tmp_path / "obj" / ".config").exists()
    assert not (tmp_path / "up.o").exists()


@pytest.mark.parametrize("head", ["", " ", "\n"])
def test_a_command_without_a_word(objects: Objects, head: str) -> None:
    plant(objects, "kernel/new.o", head, "none.c", "more")
    objects.found("kernel/new.o", {"KBUILD_CFLAGS": "-O2"}, "", "")
    objects.lay("vmlinux", complete=False, prepare=None)
    assert objects.laid == {}
