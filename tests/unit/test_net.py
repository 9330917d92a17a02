"""The network stage: its tasks, what it refuses, and the machines' network cards."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks import kernel_config, net, qemu
from tasks.config import machine, project
from tasks.guest import boot
from tasks.guest.qemu import Boot, argv
from tasks.network import card as netguest
from tasks.network import record, state
from tasks.network.plan import Request
from tasks.system.errors import PiggyError
from tasks.system.process import Completed
from tasks.system.terminal import printable

TOP = Path(__file__).parents[2]
MACHINES = sorted(path.stem for path in (TOP / "configs" / "machines").glob("*.toml"))


def load(**settings: str) -> project.Project:
    return project.load(TOP, {}, settings)


def test_the_tasks_and_their_options() -> None:
    made = {one["basename"]: one for one in net.tasks(load())}
    assert list(made) == ["net_up", "net_down", "net_status"]
    assert [option["long"] for option in made["net_up"]["params"]] == ["dry-run", "yes"]
    assert list(net.tasks(load(machine="mps2"))) == []


@pytest.mark.parametrize("mode", ["user", "lab", "none"])
def test_modes_that_take_nothing_on_the_host(mode: str) -> None:
    with pytest.raises(PiggyError) as caught:
        net.plan(load(net=mode), consent=False)
    assert f"net={mode} takes nothing on the host" in caught.value.message


def test_what_the_settings_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setattr(net.os, "geteuid", lambda: 0)
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.7 5555 10.0.0.2 22")
    found = net.request(load(net="bridged", uplink="eth0", guests="2"), consent=False)
    assert (found.owner, found.ssh, found.uplink, found.guests) == (1234, "10.0.0.2", "eth0", 2)
    assert found.run_dir == str(record.place())
    monkeypatch.delenv("SSH_CONNECTION")
    assert net.request(load(), consent=True).ssh == ""


@pytest.mark.parametrize(
    ("sudo", "status", "message"),
    [
        ("", 0, "needs root, and there is no sudo"),
        ("/usr/bin/sudo", 1, "sudo can't ask for a password here"),
    ],
)
def test_without_root_the_command_is_said(
    monkeypatch: pytest.MonkeyPatch, sudo: str, status: int, message: str
) -> None:
    monkeypatch.setattr(net.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(net.shutil, "which", lambda name: sudo)
    monkeypatch.setattr(net.sys, "stdin", SimpleNamespace(isatty=lambda: False))
    monkeypatch.setattr(net, "run", lambda *args, **more: Completed((), status, "", 0))
    with pytest.raises(PiggyError) as caught:
        net._as_root(load(), ["down"], "net_down")
    assert message in caught.value.message
    assert "-B -m tasks.network.apply down" in caught.value.hint


def test_with_sudo_it_goes_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(net.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(net.shutil, "which", lambda name: "/usr/bin/sudo")
    monkeypatch.setattr(net.sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(
        net, "foreground", lambda words, cwd, stdin: called.append((words, stdin)) or 0
    )
    net._as_root(load(), ["up"], "net_up", b"{}")
    assert called == [
        (["sudo", net.sys.executable, "-B", "-m", "tasks.network.apply", "up"], b"{}")
    ]


def test_by_hand_the_plan_is_handed_in_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(net.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(net.shutil, "which", lambda name: "")
    with pytest.raises(PiggyError) as caught:
        net._as_root(load(build=str(tmp_path)), ["up"], "net_up", b"{}")
    assert caught.value.hint.endswith(f" -B -m tasks.network.apply up <{tmp_path}/net/plan.json")
    assert (tmp_path / "net" / "plan.json").read_bytes() == b"{}"


@pytest.mark.parametrize(
    "number", ["abc", "-1", "4294967295", "9" * 5000, "\u0663", "\x1b[2J", " 1"]
)
def test_a_user_that_cannot_be(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setattr(net.os, "geteuid", lambda: 0)
    with pytest.raises(PiggyError, match="SUDO_UID=.* is no user's number") as caught:
        net.owner({"SUDO_UID": number})
    assert printable(caught.value.message) == caught.value.message


def test_whose_the_taps_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net.os, "getuid", lambda: 7)
    monkeypatch.setattr(net.os, "geteuid", lambda: 7)
    assert net.owner({"SUDO_UID": "1234"}) == 7  # SUDO_UID counts for root only
    monkeypatch.setattr(net.os, "geteuid", lambda: 0)
    assert net.owner({"SUDO_UID": "1234"}) == 1234
    assert net.owner({}) == 7


def test_what_is_up_and_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.network import plan as netplan

    plan = netplan.nat(state.State(), Request())
    assert net._same(load(net="nat"), plan, consent=False) is plan
    with pytest.raises(PiggyError) as caught:
        net._same(load(net="nat", guests="2", bridge_address="10.9.8.1/24"), plan, consent=False)
    assert "with another guests and bridge_address" in caught.value.message


@pytest.mark.parametrize("name", MACHINES)
def test_every_card_can_be_told_its_address_and_its_driver_is_known(name: str) -> None:
    model, _ = machine.load(TOP, name)
    cards = ([model.qemu.nic] if model.qemu and model.qemu.nic else []) + [
        nic.args for nic in model.nic.values()
    ]
    for card in cards:
        assert any(
            "{mac}" in word for word in card
        )  # so that two guests on a bridge get different addresses
        assert model.qemu
        assert all(one in netguest.CARDS for one in netguest.models(card))
        assert list(netguest.models(card)) or model.qemu.needs.get("nic")
    if cards:
        assert {"network", "httpd"} <= set(model.rootfs.overlays)
        assert {"network", "tiny"} & set(model.busybox.fragments)
    for nic in model.nic.values():
        assert set(nic.instead_of) <= set(model.kernel.fragments)


def command(its: project.Project) -> list[str]:
    return boot.command(its, boot.gather(its, None), "tcg", interactive=False)


def test_another_card_takes_the_place_of_the_machines_own() -> None:
    names = [path.stem for path in kernel_config.fragment_paths(load(nic="virtio"))]
    assert "ne2k-pci" not in names
    assert {"virtio-pci", "virtio-net", "net"} <= set(names)
    words = command(load(nic="e1000", boot="initramfs"))
    assert "e1000,netdev=net0,mac=52:54:00:12:34:56,addr=3,romfile=" in words
    assert "user,id=net0" in words
    with pytest.raises(PiggyError) as caught:
        load(nic="e100")
    assert "Did you mean 'e1000'?" in caught.value.message


def test_a_lost_race_for_a_port_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.guest import checks, serial
    from tasks.network import cable

    lost = [True, True, False]
    report = checks.Report((), 1.0, 0.5, 2.0)

    def boot_test(*args: Any) -> checks.Report:
        if lost[0]:
            raise serial.GuestError(
                "QEMU ended with status 1", "", "Could not set up host forwarding rule", Path("log")
            )
        return report

    monkeypatch.setattr(cable.Cable, "conflict", lambda self: lost.pop(0))
    monkeypatch.setattr(checks, "boot_test", boot_test)
    its = load(boot="initramfs", forward="")
    it = qemu.gathered(its)
    assert qemu.tested(its, it, "tcg", (), serial.Limits()) is report
    assert lost == [False]
    lost[:] = [True]  # QEMU failed for another reason
    monkeypatch.setattr(cable.Cable, "conflict", lambda self: False)
    with pytest.raises(serial.GuestError):
        qemu.tested(its, it, "tcg", (), serial.Limits())


def test_no_card_no_words() -> None:
    words = " ".join(command(load(net="none")))
    assert "net0" not in words
    with pytest.raises(PiggyError):
        boot.networked(
            SimpleNamespace(
                nic=None,
                settings=SimpleNamespace(net="nat", machine="x"),
                origins={"net": "here"},
                machine=SimpleNamespace(qemu=SimpleNamespace(nic=())),
            )
        )  # type: ignore[arg-type]


def test_the_address_and_the_end_of_the_cable_go_to_qemu() -> None:
    model, _ = machine.load(TOP, "versatile")
    assert model.qemu
    words = argv(
        model.qemu,
        Boot(kernel=Path("/k"), net="tap,ifname=t0", mac="52:54:00:00:00:07", serial="pty"),
    )
    assert words[words.index("-nic") + 1] == "tap,ifname=t0,mac=52:54:00:00:00:07"
    assert words[words.index("-serial") + 1] == "pty"


def test_packages_that_only_a_mode_takes() -> None:
    from tasks.config import packages

    table, model = packages.load(TOP), load().machine
    plain = {need.name for need in packages.needs(table, model, "user")}
    assert {need.name for need in packages.needs(table, model, "nat")} - plain == {
        "ip",
        "nft",
        "dnsmasq",
    }
    lab = {need.name for need in packages.needs(table, model, "lab")}
    assert lab - plain == {"ip", "nft", "dnsmasq", "pasta", "nsenter"}
