"""The guest's side: forwarded ports, hardware addresses, ip=, and the kernel symbols needed."""

from __future__ import annotations

import ipaddress

import pytest

from tasks.network import card
from tasks.network.card import Forward
from tasks.system.errors import PiggyError

NETWORK = ipaddress.IPv4Network("192.168.135.0/24")
GOOD = dict.fromkeys(("NET", "INET", "NETDEVICES", "PACKET", "PCI", "NE2K_PCI"), "y")
NE2K = ("-netdev", "{net},id=net0", "-device", "ne2k_pci,netdev=net0,mac={mac},romfile=")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("http=80", [Forward("http", 80)]),
        ("http ssh", [Forward("http", 80), Forward("ssh", 22)]),
        ("2222:22, 53/udp", [Forward("ssh", 22, 2222), Forward("domain", 53, 0, "udp")]),
        ("web=8080:80/tcp", [Forward("web", 80, 8080)]),
        ("9000", [Forward("port 9000", 9000)]),
    ],
)
def test_forwards(text: str, found: list[Forward]) -> None:
    assert card.forwards(text) == found


@pytest.mark.parametrize(
    "text",
    ["0", "http=", "65536", "80:99999", "x=y", "80/icmp", "gopher", "80:22 80:23", "-1", "1:2:3"],
)
def test_forwards_that_are_none(text: str) -> None:
    with pytest.raises(PiggyError) as caught:
        card.forwards(text)
    assert f"forward={text}" in caught.value.message


def test_ports_easy_to_remember_come_first() -> None:
    assert [one.first for one in card.forwards("80 22 8000 2222:22")] == [8080, 8022, 8000, 2222]


def test_qemus_words_listen_on_the_loopback_alone() -> None:
    taken = [(Forward("http", 80), 8081), (Forward("dns", 53, 0, "udp"), 8053)]
    assert (
        card.user_net(taken) == "user,hostfwd=tcp:127.0.0.1:8081-:80,hostfwd=udp:127.0.0.1:8053-:53"
    )
    assert card.user_net(taken[:1], "10.0.2.7") == "user,hostfwd=tcp:127.0.0.1:8081-10.0.2.7:80"


def test_hardware_addresses_differ_and_stay() -> None:
    made = {
        card.mac(host, bridge, number)
        for host in "ab"
        for bridge in ("br0", "br1")
        for number in range(3)
    }
    assert len(made) == 12
    assert all(mac.startswith("52:54:00:") and len(mac) == 17 for mac in made)
    assert card.mac("a", "br0", 0) == card.mac("a", "br0", 0)


@pytest.mark.parametrize(
    ("address", "network", "word"),
    [
        ("dhcp", NETWORK, ""),
        ("off", NETWORK, "ip=off"),
        (
            "192.168.135.9",
            NETWORK,
            "ip=192.168.135.9::192.168.135.251:255.255.255.0:::off:192.168.135.251",
        ),
        ("10.1.2.3/16", None, "ip=10.1.2.3::192.168.135.251:255.255.0.0:::off:192.168.135.251"),
    ],
)
def test_the_kernels_word(address: str, network: ipaddress.IPv4Network | None, word: str) -> None:
    assert card.ip_parameter(address, network, "192.168.135.251", ["192.168.135.251"]) == word


@pytest.mark.parametrize(
    ("address", "network", "why"),
    [
        ("10.0.0.1", NETWORK, "not in"),
        ("192.168.135.255", NETWORK, "not in"),
        ("192.168.135.251", NETWORK, "taken"),
        ("192.168.135.9", None, "prefix"),
        ("guest", NETWORK, "address=guest"),
    ],
)
def test_addresses_that_no_guest_can_have(
    address: str, network: ipaddress.IPv4Network | None, why: str
) -> None:
    with pytest.raises(PiggyError) as caught:
        card.ip_parameter(address, network, "192.168.135.251", [])
    assert why in caught.value.message


def test_a_kernel_that_has_all() -> None:
    assert card.unmet(GOOD, NE2K, (), dhcp=True) == []


@pytest.mark.parametrize(
    ("symbol", "whose"),
    [("NE2K_PCI", "ne2k_pci"), ("PCI", "ne2k_pci"), ("INET", "IPv4"), ("PACKET", "DHCP")],
)
def test_a_kernel_that_lacks_something(symbol: str, whose: str) -> None:
    ((who, what),) = card.unmet({**GOOD, symbol: "n"}, NE2K, (), dhcp=True)
    assert whose in who
    assert what == symbol


def test_modules_do_where_an_initramfs_brings_them() -> None:
    config = {**GOOD, "NE2K_PCI": "m"}
    assert card.unmet(config, NE2K, (), dhcp=True, modules=True) == []
    assert card.unmet(config, NE2K, (), dhcp=True) != []
    assert card.unmet({**GOOD, "PACKET": "n"}, NE2K, (), dhcp=False) == []


def test_cards_on_the_board_and_unknown_ones() -> None:
    assert card.unmet(GOOD, ("-nic", "{net},mac={mac}"), ("SMC91X",), dhcp=True) == [
        ("the machine's network card", "SMC91X")
    ]
    assert card.unmet(GOOD, ("-nic", "{net},model=e1000"), (), dhcp=True) == [
        ("the network card e1000", "E1000")
    ]
    assert card.unmet(GOOD, ("-device", "card-of-tomorrow"), (), dhcp=True) == []
