"""A card's network backend: QEMU's options, free ports, taps of net_up, bridge helpers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tasks.config.settings import Settings
from tasks.guest import network_checks
from tasks.network import cable as netattach
from tasks.network import plan as netplan
from tasks.network import record as netrecord
from tasks.network import state
from tasks.network.cable import Cable
from tasks.network.card import Forward
from tasks.network.plan import Request
from tasks.network.record import Record
from tasks.network.state import State
from tasks.system.errors import PiggyError


def listener(port: int = 0) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", port))
    found.listen()
    return found


def refused(settings: Settings) -> PiggyError:
    with pytest.raises(PiggyError) as caught, netattach.cables(settings):
        pass
    return caught.value


def test_no_card() -> None:
    with netattach.cables(Settings(net="none")) as (cable,):
        assert cable.net == ""


def test_user_mode_forwards_a_free_port_and_says_which() -> None:
    with netattach.cables(Settings()) as (cable,):
        ((forward, port),) = cable.taken
        assert (forward, cable.net) == (
            Forward("http", 80),
            f"user,hostfwd=tcp:127.0.0.1:{port}-:80",
        )
        assert cable.notes == (f"http://127.0.0.1:{port}/ is the guest's http (port 80)",)
        assert (cable.append, cable.prefix) == ("", ())


def test_a_busy_port_is_passed_over_and_one_asked_for_is_an_error() -> None:
    with listener() as busy:
        port = busy.getsockname()[1]
        assert (
            f"port {port} of this host is in use" in refused(Settings(forward=f"{port}:80")).message
        )
        one = Forward("x", port)  # above 1000 the same port of the host is tried first
        assert netattach._choose([one])[0][1] > port


def test_two_forwards_get_two_ports() -> None:
    taken = netattach._choose([Forward("a", 80), Forward("b", 80), Forward("c", 80, 0, "udp")])
    assert taken[0][1] != taken[1][1]
    assert taken[2][0].protocol == "udp"


def test_a_lost_race_is_seen() -> None:
    with listener() as busy:
        port = busy.getsockname()[1]
        cable = Cable(taken=((Forward("http", 80), port),))
        assert cable.conflict()
    assert not cable.conflict()


def test_a_guest_without_a_way_out() -> None:
    with netattach.cables(Settings(restrict=True)) as (cable,):
        assert cable.net.startswith("user,restrict=on,hostfwd=tcp:127.0.0.1:")
        with network_checks.served(cable, "token") as page:
            assert page == ("", "token")
        names = [check.name for check in network_checks.checks(cable, ["network", "httpd"], page)]
    assert names == ["network", "httpd"]  # no check that needs the host


def test_static_addresses() -> None:
    with netattach.cables(Settings(address="10.0.2.77")) as (cable,):
        assert cable.append == "ip=10.0.2.77::10.0.2.2:255.255.255.0:::off:10.0.2.3"
        assert "-10.0.2.77:80" in cable.net
    assert (
        "not in the guests' network 10.0.2.0/24" in refused(Settings(address="192.168.1.1")).message
    )


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record of a net=nat in force, with two taps, the first of which has a guest."""
    monkeypatch.setattr(netrecord, "place", lambda: tmp_path)
    monkeypatch.setattr(state, "tun_trouble", lambda: "")
    monkeypatch.setattr(netattach, "_carrier", lambda tap: "1" if tap.endswith("0") else "0")
    plan = netplan.nat(State(), Request(guests=2, run_dir=str(tmp_path)))
    netrecord.write(tmp_path, Record(boot=netrecord.boot_id(), plan=plan, begun=0, complete=True))
    return tmp_path


def test_nat_takes_the_first_free_tap(up: Path) -> None:
    with netattach.cables(Settings(net="nat")) as (cable,):
        assert cable.net == "tap,ifname=piggy0-tap1,script=no,downscript=no"
        assert cable.mac.startswith("52:54:00:")
        assert cable.gateway == "192.168.135.251"
    with netattach.cables(Settings(net="nat", address="192.168.135.7")) as (cable,):
        assert cable.append.startswith("ip=192.168.135.7::192.168.135.251:255.255.255.0:")


def test_nat_without_a_free_tap(up: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netattach, "_carrier", lambda tap: "1")
    assert "guests=3 net_up" in refused(Settings(net="nat")).hint
    monkeypatch.setattr(state, "tun_trouble", lambda: "/dev/net/tun is missing")
    assert refused(Settings(net="nat")).message == "/dev/net/tun is missing"


def test_what_is_not_up(up: Path) -> None:
    assert (
        "net=bridged bridge=piggy0 is not up (up is: net=nat bridge=piggy0)"
        in refused(Settings(net="bridged")).message
    )
    record = netrecord.read(up)
    assert record
    netrecord.write(up, msgspec.structs.replace(record, complete=False))
    found = refused(Settings(net="nat"))
    assert "no network of ours" in found.message
    assert found.hint == "doit net=nat net_up"


def test_somebody_elses_bridge_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper, allowed = tmp_path / "qemu-bridge-helper", tmp_path / "bridge.conf"
    helper.touch()
    monkeypatch.setattr(netattach.os, "geteuid", lambda: 0)
    monkeypatch.setattr(netattach.Path, "is_dir", lambda self: True)

    def asked(rules: str) -> str:
        allowed.write_text(rules)
        return netattach.bridge_helper("br0", [tmp_path / "none", helper], allowed)

    assert asked("allow br0\n") == asked("# all\nallow all\n") == str(helper)
    assert asked("allow br1\n") == asked("allow all\ndeny br0\n") == ""
    monkeypatch.setattr(netattach.os, "geteuid", lambda: 1000)
    assert asked("allow br0\n") == ""  # not setuid
    monkeypatch.setattr(netattach.Path, "is_dir", lambda self: False)
    assert asked("allow br0\n") == ""  # no such bridge


UP = """2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc pfifo_fast qlen 1000
    inet 10.0.2.15/24 brd 10.0.2.255 scope global eth0
       valid_lft forever preferred_lft forever
default via 10.0.2.2 dev eth0 """


def test_the_checks_that_a_cable_is_worth() -> None:
    def names(cable: Cable, *overlays: str, page: str = "http://10.0.2.2:1/") -> list[str]:
        return [
            check.name
            for check in network_checks.checks(cable, overlays, (page, "x"), ["192.168.135.65"])
        ]

    user = Cable(taken=((Forward("http", 80), 8080),), listen="127.0.0.1")
    assert names(user, "base", "network", "httpd") == [
        "network",
        "gateway",
        "fetch",
        "neighbour 192.168.135.65",
        "httpd",
    ]
    assert names(user, "base", "network", page="") == [
        "network",
        "gateway",
        "neighbour 192.168.135.65",
    ]
    assert "httpd" not in names(
        Cable(listen="127.0.0.1"), "network", "httpd"
    )  # without a forwarded port
    assert "httpd" in names(Cable(net="tap", listen="192.168.135.251"), "network", "httpd")
    assert (
        names(user, "base")
        == names(Cable(net=""), "network")
        == names(Cable(append="ip=off"), "network")
        == []
    )


def test_what_the_guest_says_is_judged() -> None:
    assert network_checks._up("", UP) == "eth0 has 10.0.2.15/24, gateway 10.0.2.2"
    without_ip = "inet 10.0.2.15 eth0\ndefault via 10.0.2.2\n"
    assert network_checks._up("", without_ip) == "eth0 has 10.0.2.15, gateway 10.0.2.2"
    assert (
        network_checks._ping("64 bytes from 10.0.2.2: seq=0 ttl=255 time=1.234 ms\n")
        == "10.0.2.2 answers after 1.234 ms"
    )
    assert network_checks._fetched("u", "token", "token\n") == "u fetched (5 bytes)"
    for wrong in (
        lambda: network_checks._up("", "default via 10.0.2.2"),
        lambda: network_checks._up("10.0.2.16", UP),
        lambda: network_checks._ping("1 packets transmitted, 0 packets received"),
        lambda: network_checks._fetched("u", "token", "404"),
    ):
        with pytest.raises(ValueError):
            wrong()


@pytest.fixture
def answering() -> Iterator[Callable[[bytes, float], str]]:
    """A guest's web server that sends bytes one by one, with a pause (seconds) between them."""
    with contextlib.ExitStack() as stack:

        def serve(data: bytes, pause: float) -> str:
            server = stack.enter_context(listener())

            def talk() -> None:
                peer, _ = server.accept()
                with peer, contextlib.suppress(OSError):
                    peer.recv(4096)
                    for at in range(len(data)) if pause else ():
                        peer.sendall(data[at : at + 1])
                        time.sleep(pause)
                    for _ in range(0 if pause else 400):
                        peer.sendall(data)

            threading.Thread(target=talk, daemon=True).start()
            return f"http://127.0.0.1:{server.getsockname()[1]}/"

        yield serve


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_cgi_script_may_end_its_lines_as_unix_does(answering, end: str) -> None:
    url = answering(
        f"HTTP/1.0 200 OK\r\nContent-Type: text/html{end}{end}<p>6.1</p>".encode(), 0.001
    )
    assert (
        network_checks._served(url, "inet 10.0.2.15/24\n6.1")
        == f"{url} fetched from the host (10 bytes)"
    )


@pytest.mark.parametrize(
    ("data", "pause", "said"),
    [
        (
            b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
            0,
            "does not show the guest's kernel 6.1",
        ),
        (b"x" * 100_000, 0, "gives no answer of HTTP"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"y" * 100_000, 0, "does not show"),
        (b"HTTP/1.0 200 OK\r\nX: " + b"x" * 99, 0.05, "no whole answer in time|timed out"),
        (b"", 0, "gives no answer"),
    ],
)
def test_a_guests_web_server_that_goes_on_and_on(
    answering, monkeypatch: pytest.MonkeyPatch, data: bytes, pause: float, said: str
) -> None:
    monkeypatch.setattr(network_checks, "_SERVED", 1.0)
    monkeypatch.setattr(network_checks, "_LONGEST", 1 << 17)
    started = time.monotonic()
    with pytest.raises(ValueError, match=said):
        network_checks._served(answering(data, pause), "inet 10.0.2.15/24\n6.1")
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("output", ["", "\n", "inet 10.0.2.15/24"])
def test_a_guest_that_says_nothing_of_itself(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_checks, "_SERVED", 1.0)
    with pytest.raises(
        ValueError, match="says nothing|no address|refused|timed out|does not show|gives no answer"
    ):
        network_checks._served("http://127.0.0.1:1/" if output.strip() else "", output)


def test_the_page_is_served_and_the_guests_is_fetched() -> None:
    import urllib.request

    with network_checks.served(Cable(listen="127.0.0.1", gateway="127.0.0.1"), "6.1.192") as (
        url,
        token,
    ):
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert answer.read().decode() == token
        assert "fetched from the host" in network_checks._served(url, "inet 10.0.2.15/24\n6.1.192")
        with pytest.raises(ValueError) as caught:
            network_checks._served(url, "inet 10.0.2.15/24\n6.12.1")
        assert "does not show the guest's kernel" in str(caught.value)
    with network_checks.served(Cable(prefix=("nsenter",), gateway="192.168.135.251"), "t") as page:
        assert page == ("http://192.168.135.251:8000/", "t")
    with network_checks.served(Cable(listen=""), "t") as page:
        assert page[0] == ""
