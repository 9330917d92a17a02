"""One boot: what is checked is what starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tasks.config import project
from tasks.guest import boot, preflight
from tasks.network.cable import Cable
from tasks.system.errors import PiggyError

TOP = Path(__file__).parents[3]


@pytest.mark.parametrize("where", ["disk", "initramfs"])
def test_what_is_checked_is_what_starts(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    its = project.load(TOP, {}, {"boot": where, "memory": "48", "append": "quiet", "net": "none"})
    it = boot.gather(its, None)
    assert its.machine.qemu
    words = boot.command(its, it, "tcg", interactive=False)
    root = its.layout.rootfs if where == "disk" else its.layout.initramfs
    assert any(str(root.absolute()) in word for word in words)
    kernel, image = tmp_path / "kernel", tmp_path / "root"
    kernel.write_bytes(b"k" * 1000)
    image.write_bytes(b"r" * 500)
    seen: dict[str, Any] = {}

    def check(config: object, append: str, machine: object, **rest: Any) -> list[preflight.Problem]:
        seen.update(rest, append=append)
        return [preflight.Problem("no", "mend it")]

    monkeypatch.setattr(preflight, "check", check)
    here = {"rootfs" if where == "disk" else "initrd": image}
    with pytest.raises(PiggyError, match="this would not boot: no"):
        boot.check(its, msgspec.structs.replace(it, kernel=kernel, **here), {}, 7, True)
    assert seen["append"] == words[words.index("-append") + 1]
    assert str(seen["memory"]) == words[words.index("-m") + 1] == "48"
    assert (seen["has_disk"], seen["has_initrd"]) == (where == "disk", where == "initramfs")
    assert seen["payload"] == (1000 if where == "disk" else 1500)
    assert (seen["unpacked"], seen["attributes"]) == ((0, True) if where == "disk" else (7, False))


def test_a_cable_comes_before_the_users_own_words() -> None:
    its = project.load(TOP, {}, {"append": "quiet"})
    cable = Cable(net="user,a=b", append="ip=dhcp", prefix=("nsenter", "--"))
    words = boot.command(its, boot.gather(its, None), "tcg", interactive=False, cable=cable)
    assert words[:2] == ["nsenter", "--"]
    assert words[words.index("-append") + 1].endswith(" ip=dhcp quiet")
    assert any("user,a=b" in word for word in words)


def test_a_trial_leaves_the_disk_alone() -> None:
    its = project.load(TOP, {}, {"boot": "disk", "snapshot": "no"})
    it = boot.gather(its, None)
    assert "-snapshot" not in boot.command(its, it, "tcg", interactive=False)
    assert "-snapshot" in boot.command(its, it, "kvm", interactive=False, trial=True)


def test_a_floppy_brings_kernel_root_and_command_line() -> None:
    its = project.load(TOP, {}, {"machine": "floppy"})
    it = boot.gather(its, None)
    assert (it.initrd, it.rootfs, it.floppy) == (None, None, its.layout.floppy.absolute())
    words = boot.command(its, it, "tcg", interactive=False)
    assert not {"-kernel", "-append", "-initrd"} & set(words)
    assert f"file={it.floppy},format=raw,if=floppy,index=0" in words
    with pytest.raises(PiggyError, match="told ip=off, and a floppy has its own command line"):
        boot.command(its, it, "tcg", interactive=False, cable=Cable(net="user", append="ip=off"))


def started(**words: str) -> list[str]:
    its = project.load(TOP, {}, words)
    return boot.command(its, boot.gather(its, None), "tcg", interactive=False)


def test_the_preset_fast_starts_another_firmware() -> None:
    fast = started(fragments="fast")
    assert fast[fast.index("-bios") + 1] == "qboot.rom"
    assert fast[fast.index("-cpu") + 1].endswith(",-apic")
    assert "-initrd" in fast
    # It tells Linux the wrong interrupt of the second slot.
    assert all("addr=3" in word for word in fast if "netdev=net0" in word)
    assert started(fragments="fast", firmware="", boot="disk") == started()
    # It does not switch a screen on.
    assert "-bios" not in started(fragments="fast", display="vga")


def test_an_unknown_firmware_names_the_known_ones() -> None:
    with pytest.raises(PiggyError, match="has no firmware 'qbot'. Did you mean 'qboot'") as caught:
        project.load(TOP, {}, {"firmware": "qbot"})
    assert caught.value.hint == "firmware: qboot"
    with pytest.raises(PiggyError, match="has no firmware 'qboot'"):
        project.load(TOP, {}, {"machine": "versatile", "firmware": "qboot"})


def test_a_kernel_without_messages_may_be_silent_until_its_shell() -> None:
    its = project.load(TOP, {}, {"timeout": "50"})
    mute = boot.limits(its, "tcg", {"PRINTK": "n"})
    loud = boot.limits(its, "tcg", {"PRINTK": "y"})
    assert mute.silence == mute.boot == loud.boot > loud.silence
    assert mute.total == loud.total == 50
