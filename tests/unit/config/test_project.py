from __future__ import annotations

import os
from pathlib import Path

import pytest
from shipped import load, refused

from tasks.config import layout, machine
from tasks.system.errors import PiggyError

TOP = Path(__file__).parents[3]


def tree(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "Makefile").touch()
    return path


def test_the_places(top: Path) -> None:
    found = load(top)
    assert str(found.layout.build) == "build"
    assert str(found.layout.images) == "build/pc/images"
    assert str(found.layout.logs) == "build/pc/logs"
    assert str(found.layout.dl) == "dl"
    assert str(found.layout.kernel_src) == "build/src/linux-6.1"
    assert str(found.layout.kernel_obj) == "build/pc/kernel/6.1"
    assert str(found.layout.busybox_src) == "build/src/busybox"
    assert [str(folder) for folder in found.overlays] == [
        "overlays/base",
        "overlays/network",
        "overlays/httpd",
    ]
    assert found.lock.path == Path("build/pc/lock")
    assert not (top / "build").exists()  # loading writes nothing


def test_places_of_the_users_own(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = load(top, build="~/b", dl="/var/d")
    assert found.layout.images == tmp_path / "b" / "pc" / "images"
    assert found.stamps.store == tmp_path / "b" / "pc" / "stamps"
    assert found.layout.dl == Path("/var/d")


@pytest.mark.parametrize(
    ("words", "path", "name"),
    [
        ({}, "configs/kernel/base.config", "<top>/configs/kernel/base.config"),
        ({}, "build/pc/images/config", "<build>/pc/images/config"),
        ({"build": "out"}, "out/pc/images/config", "<build>/pc/images/config"),
        ({"build": "out"}, "build/x", "<top>/build/x"),
        ({"build": "~/b"}, "~/b/pc/images/config", "<build>/pc/images/config"),
        ({}, "build/src/linux-6.1/Makefile", "<tree>/Makefile"),
        ({}, "build/src/linux-6.1-123/Makefile", "<tree>/Makefile"),
        ({}, "build/src/busybox/Makefile", "<busybox>/Makefile"),
        ({"kernel_src": "~/linux"}, "~/linux/Makefile", "<tree>/Makefile"),
        ({"kernel_src": "~/link"}, "~/linux/Makefile", "<tree>/Makefile"),
        ({"kernel_src": "~/linux"}, "build/src/linux-6.1/x", "<build>/src/linux-6.1/x"),
        ({}, "build/pc/kernel/6.1/x.ko", "<obj>/x.ko"),
        ({}, "build/toolchains/1/bin/cc", "<libc>/bin/cc"),
        ({}, "~/other", "~/other"),
    ],
)
def test_words_for_the_places(
    top: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: dict[str, str],
    path: str,
    name: str,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tree(tmp_path / "linux")
    (tmp_path / "link").symlink_to(tmp_path / "linux")
    tree(top / "build" / "src" / "linux-6.1-123")
    (top / "build" / "src" / "linux-6.1").symlink_to("linux-6.1-123")
    places = layout.places(top, load(top, **words).layout, {"libc": "build/toolchains/1"})
    for full in (os.path.expanduser(path), os.path.abspath(os.path.expanduser(path))):
        assert places.name(full) == os.path.expanduser(name)
        assert os.path.realpath(places.path(places.name(full))) == os.path.realpath(full)


def test_jobs(top: Path) -> None:
    assert load(top).jobs.size == len(os.sched_getaffinity(0))
    assert load(top, jobs="3").jobs.size == 3


def test_trees_of_the_users_own_have_objects_of_their_own(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    one, two = tree(tmp_path / "a" / "linux"), tree(tmp_path / "b" / "linux")
    objects = {load(top, kernel_src=str(path)).layout.kernel_obj for path in (one, two)} | {
        load(top).layout.kernel_obj
    }
    assert len(objects) == 3
    for name in (
        str(one),
        "../a/linux",
        "~/a/linux",
        f"{one}/",
        f"{two}/../../a/linux",
    ):  # the same tree under different names
        found = load(top, kernel_src=name, busybox_src=name)
        assert found.layout.kernel_src == found.layout.busybox_src == one
        assert found.layout.kernel_obj in objects
    assert found.layout.kernel_place == str(one)


@pytest.mark.parametrize("setting", ["kernel_src", "busybox_src"])
def test_what_is_no_tree(top: Path, tmp_path: Path, setting: str) -> None:
    for path in (tmp_path / "missing", tmp_path):
        error = refused(top, **{setting: str(path)})
        assert error.message == f"command line: {setting}={path} has no Makefile"


def test_an_unknown_kernel_names_the_known_ones(top: Path) -> None:
    error = refused(top, kernel="6.11")
    assert (
        error.message
        == "command line: configs/sources.toml has no kernel '6.11'. Did you mean '6.1'?"
    )
    assert "6.1" in error.hint


def test_a_pin_that_is_missing(top: Path) -> None:
    path = top / "configs" / "sources.toml"
    path.write_text(
        path.read_text().replace('busybox"]', 'bussybox"]').replace('musl"]', 'muscle"]')
    )
    loaded = load(top)
    for name, near in (("busybox", "bussybox"), ("musl", "muscle")):
        with pytest.raises(PiggyError) as caught:
            loaded.source(name)
        assert (
            caught.value.message
            == f"configs/sources.toml does not name '{name}', which every build needs. Did you mean"
            f" '{near}'?"
        )


def test_overlays_of_the_setting_come_last(top: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (top / "overlays" / "extra").mkdir()
    found = load(top, overlays=f" extra , {tmp_path}/mine,,../mine")
    assert [str(folder) for folder in found.overlays][3:] == [
        "overlays/extra",
        f"{tmp_path}/mine",
        "../mine",
    ]


def test_an_unknown_overlay(top: Path) -> None:
    error = refused(top, overlays="bas")
    assert error.message == "command line: there is no overlay 'bas'. Did you mean 'base'?"
    (top / "overlays" / "file").touch()
    assert "there is no overlay 'file'" in refused(top, overlays="file").message


@pytest.mark.parametrize("name", ["a b", "a:b", "a#b", "a$b", "a'b", "a%b", "a(b)", "a\tb"])
def test_a_path_that_make_can_not_work_in(top: Path, tmp_path: Path, name: str) -> None:
    own = tree(tmp_path / name)
    for setting in ("build", "kernel_src", "busybox_src"):
        error = refused(top, **{setting: str(own)})
        assert error.message.startswith("command line: there is a ")
        assert f"in the path '{own}'" in error.message


def test_the_projects_own_folder_counts_too(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "My Projects"
    top.rename(moved)
    monkeypatch.chdir(moved)
    error = refused(moved)
    assert error.message.startswith("default: there is a ' ' in the path ")
    assert load(moved, build=str(tmp_path / "fine")).layout.build == tmp_path / "fine"


def test_two_loads_agree_and_nothing_can_be_changed(top: Path) -> None:
    one, two = load(top), load(top)
    assert (one.settings, one.machine, one.chain, one.sources) == (
        two.settings,
        two.machine,
        two.chain,
        two.sources,
    )
    with pytest.raises(AttributeError):
        one.settings = two.settings  # type: ignore[misc]
    with pytest.raises(AttributeError):
        one.settings.jobs = 4  # type: ignore[misc]


def test_a_display_adds_to_kernel_and_root_filesystem(top: Path) -> None:
    from tasks import kernel_config

    (top / "overlays" / "mine").mkdir()
    plain, shown = (
        load(top, overlays="mine"),
        load(top, overlays="mine", display="vga", fragments="xz"),
    )
    assert plain.display == machine.Display()
    assert shown.display == shown.machine.display["vga"]
    assert [folder.name for folder in plain.overlays] == ["base", "network", "httpd", "mine"]
    assert [folder.name for folder in shown.overlays] == [
        "base",
        "network",
        "httpd",
        "screen",
        "mine",
    ]
    names = [path.stem for path in kernel_config.fragment_paths(shown)]
    own = list(shown.machine.kernel.fragments)
    assert names == [*own, *shown.display.fragments, "xz"]
    assert [path.stem for path in kernel_config.fragment_paths(plain)] == own


def test_another_link_is_booted(top: Path) -> None:
    from tasks import kernel_config

    own, direct = load(top), load(top, image="vmlinux")
    assert (own.image, direct.image) == ("bzImage", "vmlinux")
    assert (own.goals[0], direct.goals[0]) == ("bzImage", "vmlinux")
    names = [path.stem for path in kernel_config.fragment_paths(direct)]
    assert names == [*direct.machine.kernel.fragments, "pvh"]
    error = refused(top, image="zImage")
    assert (
        error.message
        == "command line: the machine 'pc' can't be booted from 'zImage'. Did you mean 'bzImage'?"
    )
    assert error.hint == "images: bzImage, vmlinux"


def test_a_display_that_the_machine_has_not(top: Path) -> None:
    error = refused(top, display="vgaa")
    assert (
        error.message == "command line: the machine 'pc' has no display 'vgaa'. Did you mean 'vga'?"
    )
    assert error.hint == "displays: none, vga"
    assert (
        refused(top, machine="s3c2410", display="vga").message
        == "command line: the machine 's3c2410' has no display 'vga'."
    )


def test_a_path_that_make_can_not_work_in_gets_its_own_hint(top: Path, tmp_path: Path) -> None:
    odd = tree(tmp_path / "my tree" / "linux")
    for words, hint in (
        ({"build": str(tmp_path / "a b")}, "'build=' can name another folder"),
        ({"kernel_src": str(odd)}, "a checkout of the tree elsewhere"),
        ({"busybox_src": str(odd)}, "a checkout of the tree elsewhere"),
        (
            {"toolchain": "path", "toolchain_prefix": f"{odd}/bin/arm-"},
            "name a link to it from elsewhere",
        ),
        ({"toolchain": "llvm", "llvm": f"{odd}/bin/"}, "name a link to it from elsewhere"),
    ):
        error = refused(top, **words)
        assert error.message.startswith("command line: there is a ' ' in the path ")
        assert hint in error.hint
        assert ("build=" in error.hint) == ("build" in words)


def test_a_project_whose_path_is_no_text(tmp_path: Path) -> None:
    error = refused(tmp_path / "caf\udce9")
    assert error.message == f"the project lies in '{tmp_path}/caf\\udce9', which is not UTF-8"


def test_optional_fragments(top: Path, tmp_path: Path) -> None:
    (tmp_path / "x.config").write_text("CONFIG_A=y\n")
    found = load(top, fragments=f"net?, {tmp_path}/x.config ,tty?,tty")
    assert found.fragments == (
        Path("configs/kernel/net.config"),
        tmp_path / "x.config",
        Path("configs/kernel/tty.config"),
    )
    assert found.optional_fragments == {Path("configs/kernel/net.config")}
    assert (
        "there is no fragment 'nett'. Did you mean 'net'?"
        in refused(top, fragments="nett?").message
    )


@pytest.mark.parametrize("what", ["pipe", "folder", "dangling"])
def test_what_lies_in_place_of_a_fragment_or_an_overlay(top: Path, what: str) -> None:
    place = top / "odd"
    {
        "pipe": lambda: os.mkfifo(place),
        "folder": place.mkdir,
        "dangling": lambda: place.symlink_to("nowhere"),
    }[what]()
    assert refused(top, fragments="odd").message == "command line: 'odd' is no regular file"
    if what != "folder":
        assert refused(top, overlays="odd").message == "command line: 'odd' is no folder"
    said = "is a link to nothing" if what == "dangling" else "is no regular file"
    net = top / "configs" / "kernel" / "net.config"
    net.unlink()
    place.rename(net)
    assert refused(top).message.startswith(
        f"configs/machines/pc.toml: configs/kernel/net.config {said}."
    )


def test_the_table_of_device_nodes(top: Path) -> None:
    folder = Path("configs") / "rootfs"
    assert load(top).layout.device_table == folder / "devices.txt"
    assert load(top, devices="devtmpfs").layout.device_table == folder / "devtmpfs.txt"
    error = refused(top, devices="devtmfs")
    assert error.message.endswith("devtmfs.txt. Did you mean 'devtmpfs'?")
    assert error.hint == "tables: devices, devtmpfs"
