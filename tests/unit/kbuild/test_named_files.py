from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
from cmd_files import put

from tasks.cache.digests import Stamps
from tasks.kbuild import ledger, named_files
from tasks.kbuild.named_files import Missing, Named


class Kernel:
    """A tree whose makefiles use some symbols, and its object folder."""

    def __init__(self, top: Path) -> None:
        self.top, self.tree, self.obj = top, top / "tree", top / "obj"
        self.obj.mkdir()
        put(
            self.tree / "certs/Makefile",
            "x: $(CONFIG_SYSTEM_TRUSTED_KEYS)\ny: $(CONFIG_MODULE_SIG_KEY)\n",
        )
        put(self.tree / "lib/Kbuild", "banner: $(CONFIG_NEW_FILE)\n$(CONFIG_CC_VERSION_TEXT)\n")
        put(self.tree / "scripts/ksyms.sh", "echo $CONFIG_NEW_LIST\n")
        put(
            self.tree / "init/main.c",
            "CONFIG_MODPROBE_PATH CONFIG_CMDLINE CONFIG_DEFAULT_HOSTNAME\n",
        )

    def find(self, *lines: str) -> Named:
        """What a configuration with these lines names."""
        config = put(self.top / "config", "\n".join(["CONFIG_SMP=y", *lines, ""]))
        return named_files.find(config, self.tree, self.obj, Stamps(self.top / "stamps"))

    def paths(self, *lines: str) -> set[str]:
        """The paths that it names, from the folder of all this on."""
        return {os.path.relpath(path, self.top) for path in self.find(*lines).states()}


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_what_names_nothing(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody looks through the makefiles for that."""
    monkeypatch.setattr(named_files, "_mentioned", None)
    found = kernel.find(
        'CONFIG_INITRAMFS_SOURCE=""',
        'CONFIG_SYSTEM_TRUSTED_KEYS=""',
        'CONFIG_DEFAULT_HOSTNAME="(none)"',
        'CONFIG_CC_VERSION_TEXT="gcc (Debian 12.2.0-14) 12.2.0"',
        'CONFIG_CMDLINE="quiet root=/nowhere"',
        'CONFIG_EXTRA_FIRMWARE=""',
        f'CONFIG_EXTRA_FIRMWARE_DIR="{kernel.tree}"',
        "CONFIG_HZ=100",
    )
    assert found == Named()
    assert (
        named_files.find(
            kernel.top / "nowhere", kernel.tree, kernel.obj, Stamps(kernel.top / "stamps")
        )
        == Named()
    )


def test_a_path_of_the_running_system_is_none_of_ours(kernel: Kernel) -> None:
    program = put(kernel.top / "modprobe")
    lines = (
        f'CONFIG_MODPROBE_PATH="{program}"',
        'CONFIG_CMDLINE="init lib"',
        'CONFIG_DEFAULT_HOSTNAME="lib"',
    )
    assert kernel.paths(*lines) == set()


@pytest.mark.parametrize("symbol", ["NEW_FILE", "NEW_LIST"])
def test_a_symbol_that_nobody_here_knows(kernel: Kernel, symbol: str) -> None:
    """A makefile, or a script, uses it."""
    put(kernel.top / "a")
    put(kernel.tree / "lib/b")
    put(kernel.obj / "c")
    line = f'CONFIG_{symbol}="{kernel.top}/a lib/b c nowhere"'
    assert kernel.paths(line) == {"a", "tree/lib/b", "obj/c"}
    assert kernel.find(line).missing == []


def test_makefiles_may_be_others_by_now(kernel: Kernel) -> None:
    line = f'CONFIG_MODPROBE_PATH="{put(kernel.top / "a")}"'
    assert kernel.paths(line) == set()
    put(kernel.tree / "init/Makefile", "x: $(CONFIG_MODPROBE_PATH)\n")
    assert kernel.paths(line) == set()
    named_files.forget(kernel.obj)
    assert kernel.paths(line) == {"a"}


def test_firmware_is_looked_for_in_its_folder(kernel: Kernel) -> None:
    for name in ("fw/a.bin", "fw/sub/b.bin", "fw/unused.bin", "tree/own/a.bin"):
        put(kernel.top / name)
    where = f'CONFIG_EXTRA_FIRMWARE_DIR="{kernel.top}/fw"'
    assert kernel.paths('CONFIG_EXTRA_FIRMWARE="a.bin sub/b.bin"', where) == {
        "fw/a.bin",
        "fw/sub/b.bin",
    }
    assert kernel.paths('CONFIG_EXTRA_FIRMWARE="a.bin"', 'CONFIG_EXTRA_FIRMWARE_DIR="own"') == {
        "tree/own/a.bin"
    }
    found = kernel.find('CONFIG_EXTRA_FIRMWARE="a.bin c.bin"', where)
    assert found.missing == [Missing("EXTRA_FIRMWARE", "c.bin", f"{kernel.top}/fw/c.bin")]


def test_folders_archives_and_lists(kernel: Kernel) -> None:
    put(kernel.top / "root/bin/sh").chmod(0o755)
    (kernel.top / "root/link").symlink_to("bin/sh")
    put(kernel.top / "one")
    put(
        kernel.top / "list",
        f"# file /no {kernel.top}/no 644 0 0\ndir /x 755 0 0\n file /x/1 {kernel.top}/one 644 0"
        f" 0\nfile /x/2\t{kernel.top}/two 644 0 0\nfile /x/3 ${{NOBODY_SET_THIS}}/x 644 0 0\nslink"
        " /a b 777 0 0\n",
    )
    put(kernel.top / "x.cpio")
    source = (
        f'CONFIG_INITRAMFS_SOURCE="{kernel.top}/root {kernel.top}/list {kernel.top}/*.cpio'
        ' $(srctree)/lib/Kbuild"'
    )
    assert kernel.paths(source) == {
        "root",
        "root/bin",
        "root/bin/sh",
        "root/link",
        "list",
        "one",
        "two",
        "x.cpio",
        "tree/lib/Kbuild",
    }
    found = kernel.find(source)
    assert found.missing == [Missing("INITRAMFS_SOURCE", f"{kernel.top}/list", f"{kernel.top}/two")]
    assert found.states(modules=True) == {}
    before = found.digests()
    program = kernel.top / "root/bin/sh"
    for change in (
        partial(program.chmod, 0o700),
        partial(program.parent.chmod, 0o700),
        partial(os.utime, program, (5, 5)),
        (kernel.top / "root/link").unlink,
        partial(put, kernel.top / "root/new"),
    ):
        change()
        after = kernel.find(source).digests()
        assert [root for root in after if after[root] != before[root]] == [
            f"INITRAMFS_SOURCE {kernel.top}/root"
        ]
        before = after
    os.utime(kernel.top / "x.cpio", (5, 5))
    assert kernel.find(source).digests() == before


def test_where_links_lead(kernel: Kernel) -> None:
    """Make runs in the object folder's real place, and a list's links are followed."""
    for name in ("real/deep/obj/own", "real/root/init", "v1", "list"):
        put(kernel.top / name)
    (kernel.top / "place").symlink_to("real/deep")
    (kernel.top / "init").symlink_to("v1")
    (kernel.top / "list").write_text("file /init ../../../init 755 0 0\n")
    kernel.obj = kernel.top / "place" / "obj"
    lines = ('CONFIG_INITRAMFS_SOURCE="../../root ../../../list ../../../place/../r*t"',)
    assert kernel.paths(*lines) == {"real/root", "real/root/init", "list", "init"}
    before = kernel.find(*lines).digests()
    (kernel.top / "v1").write_text("y")
    after = kernel.find(*lines).digests()
    changed = [root for root in after if after[root] != before[root]]
    assert changed == ["INITRAMFS_SOURCE ../../../list"]
    put(kernel.top / "v2", "y")
    (kernel.top / "init").unlink()
    (kernel.top / "init").symlink_to("v2")
    assert kernel.find(*lines).digests() != after
    (kernel.top / "v2").unlink()
    assert [one.path for one in kernel.find(*lines).missing] == [f"{kernel.top}/init"]


def test_an_edge_has_no_two_dots(kernel: Kernel) -> None:
    roots, edges = {"NEW_FILE ../../x/../root"}, [("a", "/x/root/b"), ("b", "/x/root2")]
    assert named_files.targets(kernel.obj, roots, edges) == {"a"}


KEY = "certs/signing_key.pem"


def test_keys(kernel: Kernel) -> None:
    """The one that make makes is no input, but goes with what is made with it."""
    assert kernel.find(f'CONFIG_MODULE_SIG_KEY="{KEY}"') == Named()
    made = put(kernel.obj / KEY)
    assert kernel.find(f'CONFIG_MODULE_SIG_KEY="{KEY}"') == Named(made=[str(made)])
    own = put(kernel.tree / "certs/mine.pem")
    found = kernel.find('CONFIG_MODULE_SIG_KEY="certs/mine.pem"')
    assert (list(found.states(modules=True)), found.made) == ([str(own)], [])
    assert (
        kernel.find('CONFIG_MODULE_SIG_KEY="certs/none.pem"').missing[0].path
        == f"{kernel.tree}/certs/none.pem"
    )
    assert kernel.find('CONFIG_MODULE_SIG_KEY="pkcs11:token=x"') == Named()
    seed = put(kernel.obj / "scripts/basic/randstruct.seed")
    assert kernel.find("CONFIG_RANDSTRUCT_NONE_OF_IT=y").made == [str(seed)]
    assert kernel.find().made == []


@pytest.mark.parametrize(
    "line",
    [
        'CONFIG_INITRAMFS_SOURCE="\\"quoted\\" \\\\"',
        'CONFIG_INITRAMFS_SOURCE="~nobody-at-all/x [z"',
        'CONFIG_INITRAMFS_SOURCE="$(shell id) ${x"',
        f'CONFIG_NEW_FILE="{"x" * 5000}"',
        'CONFIG_NEW_FILE="a\0b \udc80"',
    ],
)
def test_odd_values(kernel: Kernel, line: str) -> None:
    config = kernel.top / "config"
    config.write_text(line + "\n", errors="surrogateescape")
    found = named_files.find(config, kernel.tree, kernel.obj, Stamps(kernel.top / "stamps"))
    expected = {"INITRAMFS_SOURCE"} if "INITRAMFS" in line else set()
    assert {one.symbol for one in found.missing} == expected


def test_a_fifo_or_an_endless_list_is_not_read(kernel: Kernel) -> None:
    os.mkfifo(kernel.top / "fifo")
    assert kernel.find(f'CONFIG_INITRAMFS_SOURCE="{kernel.top}/fifo /dev/zero"').missing == []


def record(kernel: Kernel, target: str, command: str) -> Path:
    folder, name = os.path.split(target)
    put(kernel.obj / folder / f".{name}.cmd", f"savedcmd_{target} := {command}\n")
    return put(kernel.obj / target)


def test_what_make_can_not_see_is_made_again(kernel: Kernel) -> None:
    cpio = record(
        kernel,
        "usr/initramfs_data.cpio",
        f"sh gen.sh -o usr/initramfs_data.cpio -u 0 {kernel.top}/root",
    )
    other = record(kernel, "usr/other", f"cat {kernel.top}/root-2 {kernel.top}/rooted")
    blob = record(
        kernel, "drivers/fw/a.bin.gen.o", "as -o drivers/fw/a.bin.gen.o drivers/fw/a.bin.gen.S"
    )
    bare = put(kernel.obj / "lib/default.bconf")
    roots = {
        f"INITRAMFS_SOURCE {kernel.top}/root",
        "EXTRA_FIRMWARE a.bin",
        "BOOT_CONFIG_EMBED_FILE boot.txt",
    }
    edges = [("lib/default.bconf", "/x/boot.txt"), ("usr/other", "/x/unboot.txt")]
    assert named_files.targets(kernel.obj, roots, edges) == {
        "usr/initramfs_data.cpio",
        "drivers/fw/a.bin.gen.o",
        "lib/default.bconf",
    }
    stamps = Stamps(kernel.top / "stamps")
    for digest, stays in (("1", False), ("1", True), ("2", False)):
        for path in (cpio, other, blob, bare):
            put(path)
        with ledger.kept(
            kernel.obj, kernel.tree, stamps, {f"INITRAMFS_SOURCE {kernel.top}/root": digest}
        ):
            assert (cpio.exists(), other.exists(), blob.exists()) == (stays, True, True)
    put(cpio)

    def fail() -> None:
        with ledger.kept(kernel.obj, kernel.tree, stamps, {f"I {kernel.top}/root": "3"}):
            put(cpio)
            raise OSError("make failed")

    with pytest.raises(OSError, match="make failed"):
        fail()
    with ledger.kept(kernel.obj, kernel.tree, stamps, {f"I {kernel.top}/root": "2"}):
        assert not cpio.exists()  # it may be of the state of the run that failed
