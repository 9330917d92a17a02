"""QEMU's command line, exactly, and the script that does it by hand, really run."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import msgspec
import pytest

from tasks.config.emulator import Disk, Qemu
from tasks.guest import qemu
from tasks.guest.qemu import Boot
from tasks.system.errors import PiggyError

PC = Qemu(
    binary="qemu-system-i386",
    machine="pc",
    append="reboot=t",
    nic=("-nic", "{net},model=ne2k_pci"),
    disk=Disk(args=("-drive", "file={image},format=raw,if=ide,index=0"), root="/dev/sda"),
)
KERNEL, ROOT = Path("/b/bzImage"), Path("/b/rootfs.ext2")


def test_disk_boot_exactly() -> None:
    assert qemu.argv(PC, Boot(kernel=KERNEL, rootfs=ROOT)) == [
        "qemu-system-i386",
        "-no-user-config",
        "-nodefaults",
        "-no-reboot",
        "-machine",
        "pc",
        "-accel",
        "tcg",
        "-m",
        "32",
        "-display",
        "none",
        "-serial",
        "stdio",
        "-kernel",
        "/b/bzImage",
        "-append",
        "console=ttyS0 root=/dev/sda ro panic=-1 reboot=t",
        "-drive",
        "file=/b/rootfs.ext2,format=raw,if=ide,index=0",
        "-snapshot",
    ]


def test_everything_exactly() -> None:
    machine = Qemu(
        binary="qemu-system-arm",
        machine="vexpress-a9",
        cpu="cortex-a9",
        memory=128,
        console="ttyAMA0",
        disk=Disk(
            args=("-drive", "file={image},if=none,id=d", "-device", "virtio-blk-device,drive=d"),
            root="/dev/vda",
        ),
        nic=("-nic", "{net},model=lan9118"),
        args=("-serial", "null"),
        display="gtk",
    )
    boot = Boot(
        kernel=Path("/z"),
        rootfs=Path("/a,b/r"),
        initrd=Path("/a,b/i"),
        dtb=Path("/v.dtb"),
        memory=256,
        accel="kvm",
        append=" quiet ",
        snapshot=False,
        interactive=True,
        net="tap,ifname=t0,script=no",
        extra=("-d", "int"),
    )
    assert qemu.argv(machine, boot) == [
        "qemu-system-arm",
        "-no-user-config",
        "-nodefaults",
        "-no-reboot",
        "-machine",
        "vexpress-a9",
        "-cpu",
        "cortex-a9",
        "-accel",
        "kvm",
        "-m",
        "256",
        "-display",
        "gtk",
        "-serial",
        "null",
        "-serial",
        "mon:stdio",
        "-kernel",
        "/z",
        "-initrd",
        "/a,b/i",
        "-dtb",
        "/v.dtb",
        "-append",
        "console=ttyAMA0 root=/dev/vda ro panic=-1 quiet",
        "-drive",
        "file=/a,,b/r,if=none,id=d",
        "-device",
        "virtio-blk-device,drive=d",
        "-nic",
        "tap,ifname=t0,script=no,model=lan9118",
        "-d",
        "int",
    ]


def test_a_screen() -> None:
    words = qemu.argv(
        PC,
        Boot(
            kernel=KERNEL,
            rootfs=ROOT,
            console="tty0",
            window="gtk",
            extra=("-vga", "std"),
            append="fbcon=nodefer ",
        ),
    )
    assert words[words.index("-display") + 1] == "gtk"
    assert words[-2:] == ["-vga", "std"]
    assert (
        words[words.index("-append") + 1]
        == "console=tty0 console=ttyS0 root=/dev/sda ro panic=-1 reboot=t fbcon=nodefer"
    )  # the last is /dev/console


def test_initramfs_boot_has_no_root_and_flash_boot_no_append() -> None:
    assert (
        qemu.command_line(PC, Boot(kernel=KERNEL, initrd=Path("/i")))
        == "console=ttyS0 panic=-1 reboot=t"
    )
    flash = msgspec.structs.replace(PC, kernel=("-drive", "if=pflash,format=raw,file={kernel}"))
    words = qemu.argv(flash, Boot(kernel=Path("/x,y")))
    assert "if=pflash,format=raw,file=/x,,y" in words
    assert "-append" not in words


def test_what_a_machine_has_not() -> None:
    bare = Qemu(binary="q", machine="m")
    with pytest.raises(PiggyError, match="'m' has no disk"):
        qemu.argv(bare, Boot(kernel=KERNEL, rootfs=ROOT))
    with pytest.raises(PiggyError, match="'m' has no network card"):
        qemu.argv(bare, Boot(kernel=KERNEL, net="user"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"disk": {"args": ["-hda", "{imag}"], "root": "/dev/sda"}},
            r"disk.args must hold \{image\}.*disk",
        ),
        (
            {"disk": {"args": ["-hda", "{image}{x}"], "root": "r"}},
            r"disk.args holds \{x\}, only \{image\}",
        ),
        ({"nic": ["-nic", "user"]}, r"nic must hold \{net\}"),
        ({"args": ["{image}"]}, r"args holds \{image\}"),
        ({"kernel": ["-kernel"]}, r"kernel must hold \{kernel\}"),
        ({"memory": 0}, "at least 1"),
        ({"memory": "32"}, "Expected `int`"),
        ({"memroy": 32}, "unknown field `memroy`"),
        ({"disk": {"args": ["{image}"]}}, "missing required field `root`"),
    ],
)
def test_mistakes_in_a_machine_file(table: dict, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({"binary": "q", "machine": "m", **table}, Qemu)


def test_json_in_qemu_words_is_no_placeholder() -> None:
    word = '{"driver":"virtio-blk","id":"d"}'
    assert word in qemu.argv(
        Qemu(binary="q", machine="m", args=("-device", word)), Boot(kernel=KERNEL)
    )


def test_a_table_from_toml() -> None:
    text = """
        binary = "q"
        machine = "m"
        [disk]
        args = ["{image}"]
        root = "/dev/mmcblk0"
        [needs]
        disk = ["MMC", "A|B"]"""
    table = msgspec.convert(tomllib.loads(text), Qemu)
    assert table.needs == {"disk": ("MMC", "A|B")}
    assert table.disk == Disk(args=("{image}",), root="/dev/mmcblk0")


@pytest.fixture(params=["images", "a b", "it's", "x,y", 'q"$(touch owned)`'])
def folder(request, tmp_path: Path) -> Path:
    path = tmp_path / "built here" / "images"
    path.mkdir(parents=True)
    boot = Boot(
        kernel=path / "bzImage",
        rootfs=path / "rootfs.ext2",
        initrd=Path("/else where/i"),
        interactive=True,
    )
    (path / "run-qemu.sh").write_text(qemu.script(qemu.argv(PC, boot), path))
    moved = tmp_path / request.param
    path.rename(moved)
    return moved


def ran(
    folder: Path, *args: str, cwd: Path | None = None, script: str = "", **env: str
) -> list[str]:
    """Run the script with a QEMU that prints its words one a line; return them."""
    tools = folder.parent / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "qemu-system-i386").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tools / "qemu-system-i386").chmod(0o755)
    done = subprocess.run(
        ["sh", script or str(folder / "run-qemu.sh"), *args],
        cwd=cwd,
        check=True,
        text=True,
        capture_output=True,
        env={"PATH": f"{tools}:/usr/bin:/bin", **env},
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_script_does_the_same_from_anywhere_after_a_move(folder: Path) -> None:
    boot = Boot(
        kernel=folder / "bzImage",
        rootfs=folder / "rootfs.ext2",
        initrd=Path("/else where/i"),
        interactive=True,
    )
    assert ran(folder) == qemu.argv(PC, boot)[1:]
    assert ran(folder, cwd=folder, script="run-qemu.sh") == ran(folder, CDPATH="/usr:/")
    assert not list(folder.parent.rglob("owned"))


def test_script_passes_arguments_on_and_heeds_its_variables(folder: Path) -> None:
    words = ran(folder, "-m", "64", "a b*", KVM="1", APPEND="init=/bin/sh 'x'")
    assert words[-3:] == ["-m", "64", "a b*"]
    assert words[words.index("-accel") + 1] == "kvm"
    assert (
        words[words.index("-append") + 1]
        == "console=ttyS0 root=/dev/sda ro panic=-1 reboot=t init=/bin/sh 'x'"
    )
    assert words[words.index("-display") + 1] == "none"
    shown = ran(folder, WINDOW="vnc=:1,to=9")
    assert shown[shown.index("-display") + 1] == "vnc=:1,to=9"
    assert ran(folder, KVM="0")[words.index("-accel") + 1] == "tcg"


def test_script_serves_vnc_by_a_socket_of_the_users_own(folder: Path) -> None:
    ran(folder)
    tools, place = folder.parent / "bin", folder.parent / "it's, here"
    (tools / "qemu-system-i386").write_text(
        "#!/bin/sh\nprintf '%s\\n' \"$@\"\n"
        '[ -d "$XDG_RUNTIME_DIR" ] && ls -ld "$XDG_RUNTIME_DIR"/piggy.*\nexit 7\n'
    )
    place.mkdir()
    done = subprocess.run(
        ["sh", str(folder / "run-qemu.sh")],
        check=False,
        text=True,
        capture_output=True,
        env={"PATH": f"{tools}:/usr/bin:/bin", "WINDOW": "vnc", "XDG_RUNTIME_DIR": str(place)},
    )
    assert done.returncode == 7
    words = done.stdout.splitlines()
    shown = words[words.index("-display") + 1]
    assert shown.startswith(f"vnc=unix:{place}/piggy.".replace(",", ",,"))
    assert words[-1].startswith("drwx------")
    address = shown.removeprefix("vnc=unix:").replace(",,", ",")
    assert (
        f"only you can connect to it: vncviewer {address}\nfrom elsewhere: ssh -L 5900:{address} "
        in done.stderr
    )
    assert list(place.iterdir()) == []


def test_script_is_the_same_wherever_it_was_made() -> None:
    texts = {
        qemu.script(qemu.argv(PC, Boot(kernel=top / "k", rootfs=top / "r", accel=accel)), top)
        for top in (Path("/a"), Path("/b,c/d e"))
        for accel in ("kvm", "tcg")
    }
    assert len(texts) == 1
