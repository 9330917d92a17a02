"""The guest's side of the network: QEMU's options for the card, and the kernel's ip= parameter.

These are pure functions.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern

# QEMU's user network: docs/system/devices/net.rst of QEMU.
USER_NETWORK = ipaddress.IPv4Network("10.0.2.0/24")
USER_GATEWAY, USER_DNS = "10.0.2.2", "10.0.2.3"
_SERVICES = {"http": 80, "ssh": 22, "telnet": 23, "ftp": 21, "https": 443, "domain": 53}
_FORWARD = pattern(r"(?:([a-z][a-z0-9-]*)=)?(?:([0-9]{1,5}):)?([0-9]{1,5})(?:/(tcp|udp))?")

# The kernel symbols of the driver and the bus of each of QEMU's cards, named as `qemu-system-...
# -device help` does; "A|B" means either.
CARDS: Mapping[str, tuple[str, ...]] = {
    "ne2k_pci": ("NE2K_PCI", "PCI"),
    "ne2k_isa": ("NE2000",),
    "e1000": ("E1000", "PCI"),
    "e1000e": ("E1000E", "PCI"),
    "igb": ("IGB", "PCI"),
    "pcnet": ("PCNET32", "PCI"),
    "rtl8139": ("8139CP|8139TOO", "PCI"),
    "i82551": ("E100", "PCI"),
    "i82557b": ("E100", "PCI"),
    "i82559er": ("E100", "PCI"),
    "tulip": ("TULIP|DE4X5", "PCI"),
    "vmxnet3": ("VMXNET3", "PCI"),
    "virtio-net-pci": ("VIRTIO_NET", "VIRTIO_PCI"),
    "virtio-net-device": ("VIRTIO_NET", "VIRTIO_MMIO"),
    "virtio-net-ccw": ("VIRTIO_NET",),
    "spapr-vlan": ("IBMVETH",),
    "usb-net": ("USB_NET_CDCETHER|USB_NET_RNDIS_HOST|USB_NET_CDC_SUBSET",),
}
_STACK = ("NET", "INET", "NETDEVICES")


class Forward(msgspec.Struct, frozen=True):
    """A port of the guest that is forwarded from this host.

    Attributes:
        name: The service.
        guest: The guest's port.
        host: The host's port; 0 for a free one.
        protocol: "tcp" or "udp".
    """

    name: str
    guest: int
    host: int = 0
    protocol: str = "tcp"

    @property
    def first(self) -> int:
        """The first host port to try: the requested one, or one that is easy to remember."""
        return self.host or (8000 + self.guest if self.guest < 1000 else self.guest)


def forwards(text: str) -> list[Forward]:
    """Parse the setting `forward`: items of the form [NAME=][HOSTPORT:]PORT[/udp], or a NAME alone.

    Raises:
        PiggyError: An item has another form, or a host port appears twice.
    """
    found: list[Forward] = []
    for word in text.replace(",", " ").split():
        match = _FORWARD.fullmatch(str(_SERVICES.get(word, word)))
        ports = [int(port) for port in match.group(2, 3) if port] if match else []
        if not match or not all(1 <= port <= 65535 for port in ports):
            raise PiggyError(
                f"forward={text}: '{word}' is no [NAME=][HOSTPORT:]PORT[/udp]",
                "such as forward='http=80 2222:22'; names alone are: " + ", ".join(_SERVICES),
            )
        forward = Forward(
            match[1] or (word if word in _SERVICES else _name(ports[-1])),
            ports[-1],
            int(match[2] or 0),
            match[4] or "tcp",
        )
        if forward.host and any(
            other.host == forward.host and other.protocol == forward.protocol for other in found
        ):
            raise PiggyError(f"forward={text}: port {forward.host} is there twice")
        found.append(forward)
    return found


def _name(port: int) -> str:
    return next((name for name, number in _SERVICES.items() if number == port), f"port {port}")


def user_net(
    taken: Sequence[tuple[Forward, int]], address: str = "", restrict: bool = False
) -> str:
    """Return QEMU's option for its user network.

    Args:
        taken: Each forward with the host's port. QEMU listens on the host's loopback only.
        address: The guest's address to forward to; "" for the one that QEMU's DHCP gives.
        restrict: Whether the guest reaches only QEMU's DHCP, and can answer (QEMU's documentation,
            "-netdev user,restrict="). Otherwise USER_GATEWAY is the host's loopback to it, with
            every service there.
    """
    forwarded = (
        f"hostfwd={forward.protocol}:127.0.0.1:{port}-{address}:{forward.guest}"
        for forward, port in taken
    )
    return ",".join(["user", *(["restrict=on"] if restrict else []), *forwarded])


def mac(host: str, bridge: str, number: int) -> str:
    """Return a guest's hardware address.

    The prefix 52:54:00 is QEMU's. The rest depends on host, bridge and guest, as no two cards on
    one wire may have the same address.

    Args:
        host: An identifier of this host.
        bridge: The bridge.
        number: The guest's number, from 0.
    """
    digest = hashlib.sha256(f"{host} {bridge} {number}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def ip_parameter(
    address: str, network: ipaddress.IPv4Network | None, gateway: str, dns: Sequence[str]
) -> str:
    """Return ip= for the kernel's command line, "" for DHCP, which the guest does by itself.

    Source: Documentation/admin-guide/nfs/nfsroot.rst.

    Args:
        address: The setting `address`.
        network: The network that it must be in; None if the setting has its own prefix.
        gateway: The gateway's address.
        dns: DNS servers, of which the kernel takes two.

    Raises:
        PiggyError: The address is malformed, outside the network, or taken.
    """
    if address == "dhcp":
        return ""
    if address in ("off", "none"):
        return "ip=off"
    try:
        found = ipaddress.IPv4Interface(
            address if "/" in address or network is None else f"{address}/{network.prefixlen}"
        )
    except ValueError as error:
        raise PiggyError(
            f"address={address}: {error}", "such as address=192.168.135.10, or address=dhcp"
        ) from None
    if network is None and "/" not in address:
        raise PiggyError(f"address={address} lacks its prefix, as in {address}/24")
    if network is not None and (
        found.ip not in network or found.ip in (network.network_address, network.broadcast_address)
    ):
        raise PiggyError(
            f"address={address} is not in the guests' network {network}",
            "address=dhcp gives it one",
        )
    if str(found.ip) in (gateway, *dns):
        raise PiggyError(
            f"address={address} is taken: it is the gateway's or that of the DNS server"
        )
    return f"ip={found.ip}::{gateway}:{found.netmask}:::off:{':'.join(dns[:2])}"


def unmet(
    config: Mapping[str, str],
    card: Sequence[str],
    needs: Sequence[str],
    dhcp: bool,
    modules: bool = False,
) -> list[tuple[str, str]]:
    """Return the kernel symbols that the network needs and the configuration lacks.

    Args:
        config: The kernel's configuration.
        card: QEMU's options for the card.
        needs: Further symbols that the machine's file names.
        dhcp: Whether the guest uses DHCP; udhcpc needs AF_PACKET.
        modules: Whether drivers may be modules.

    Returns:
        Who needs the symbol, and the symbol; "A|B" means either.
    """
    on = ("y", "m") if modules else ("y",)

    def missing(symbols: str) -> bool:
        return not any(config.get(symbol) in on for symbol in symbols.split("|"))

    asked: list[tuple[str, str]] = [("IPv4", symbol) for symbol in _STACK]
    asked += [("DHCP (udhcpc)", "PACKET")] if dhcp else []
    asked += [
        (f"the network card {name}", symbol)
        for name in models(card)
        for symbol in CARDS.get(name, ())
    ]
    asked += [("the machine's network card", symbol) for symbol in needs]
    return [(whose, symbol) for whose, symbol in asked if missing(symbol)]


def models(card: Sequence[str]) -> Iterator[str]:
    """Yield the models of the network cards in QEMU's options."""
    for option, value in zip(card, card[1:], strict=False):
        if option == "-device":
            yield value.partition(",")[0]
        elif option == "-nic":
            yield from (
                word.removeprefix("model=")
                for word in value.split(",")
                if word.startswith("model=")
            )
