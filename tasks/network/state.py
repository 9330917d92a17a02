"""Observe the host's network, from `ip -json`, `nft -json` and /proc/sys; nothing is changed."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shlex
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tasks.network import ip_json
from tasks.network.routes import family, route_arguments
from tasks.network.steps import Arguments
from tasks.system.errors import PiggyError
from tasks.system.files import read_regular
from tasks.system.process import clean_env, run
from tasks.system.terminal import printable

SYSCTL = Path("/proc/sys")
FORWARD = "/proc/sys/net/ipv4/ip_forward"
_CONF = "/proc/sys/net/ipv4/conf"
TUN = Path("/dev/net/tun")
TOOLS = ("nft", "iptables", "dnsmasq", "pasta", "slirp4netns")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The host's network as observed.

    Attributes:
        links: `ip -details -json link`.
        addresses: `ip -json address`.
        routes: The routes of both families, each with its "family".
        sysctls: Values by path.
        nft: The objects of `nft -json list ruleset`; None without the right to see them.
        iptables: `iptables -S`, where its rules are not among those of nft.
        tools: The programs of TOOLS that are installed.
        tun: What is wrong with /dev/net/tun; "" for nothing.
    """

    links: list[dict[str, Any]] = []
    addresses: list[dict[str, Any]] = []
    routes: list[dict[str, Any]] = []
    sysctls: dict[str, str] = {}
    nft: list[dict[str, Any]] | None = None
    iptables: tuple[str, ...] = ()
    tools: tuple[str, ...] = TOOLS
    tun: str = ""

    def link(self, name: str) -> Mapping[str, Any]:
        """Return a link by name, {} if there is none."""
        return next((link for link in self.links if link["ifname"] == name), {})

    def address(self, name: str) -> Mapping[str, Any]:
        """Return a link's entry of `ip -json address`, {} if there is none."""
        return next((link for link in self.addresses if link.get("ifname") == name), {})

    def kind(self, name: str) -> str:
        """Return a virtual link's kind ("bridge", "tun", ...), "" for a card or no link."""
        return str(self.link(name).get("linkinfo", {}).get("info_kind", ""))

    def ports(self, bridge: str) -> list[str]:
        """Return the links that are ports of a bridge."""
        return [link["ifname"] for link in self.links if link.get("master") == bridge]

    def defaults(self) -> list[Mapping[str, Any]]:
        """Return the default routes of the main tables, IPv4 first, then by metric."""
        found = [
            route
            for route in self.routes
            if route.get("dst") == "default"
            and route.get("table", "main") == "main"
            and route.get("type", "unicast") == "unicast"
        ]
        return sorted(found, key=lambda route: (family(route), route.get("metric", 0)))


def _json(argv: list[str], kind: str, check: bool = True) -> list[dict[str, Any]]:
    done = run(argv, check=check)
    return ip_json.entries(done.output, kind, shlex.join(argv)) if not done.returncode else []


def routes() -> list[dict[str, Any]]:
    """Read the routes of both families."""
    found = []
    for which in ("-4", "-6"):
        for route in _json(
            ["ip", which, "-details", "-json", "route", "show", "table", "all"],
            "route",
            check=False,
        ):
            found.append({**route, "family": which})
    return found


def observe() -> State:
    """Observe the network namespace that we are in.

    Raises:
        PiggyError: iproute2 is missing.
    """
    which = {tool: shutil.which(tool, path=clean_env()["PATH"]) for tool in TOOLS}
    return State(
        links=_json(["ip", "-details", "-statistics", "-json", "link"], "link"),
        addresses=_json(["ip", "-json", "address"], "address"),
        routes=routes(),
        sysctls=sysctls(),
        tools=tuple(tool for tool in TOOLS if which[tool]),
        tun=tun_trouble(),
        nft=_ruleset() if which["nft"] else None,
        iptables=_iptables(bool(which["nft"])),
    )


def _ruleset() -> list[dict[str, Any]] | None:
    done = run(["nft", "--json", "list", "ruleset"], check=False)
    return ip_json.ruleset(done.output) if not done.returncode else None


def _iptables(nft: bool, names: Path = Path("/proc/net/ip_tables_names")) -> tuple[str, ...]:
    """Return the rules of iptables that nft does not show: those of iptables-legacy.

    The kernel lists the latter's tables in /proc/net/ip_tables_names.
    """
    legacy = bool(_read(str(names)))
    program = shutil.which("iptables-legacy" if legacy else "iptables", path=clean_env()["PATH"])
    if not program or (nft and not legacy):
        return ()
    done = run([program, "-w", "-S"], check=False)
    return tuple(done.output.splitlines()) if not done.returncode else ()


def sysctls() -> dict[str, str]:
    """Read the switches that matter here.

    A write to ip_forward sets each link's switch and two more (inet_forward_change() in
    net/ipv4/devinet.c), so all of them are read.
    """
    paths = [
        FORWARD,
        f"{_CONF}/all/accept_redirects",
        *(f"/proc/sys/net/bridge/bridge-nf-call-{x}" for x in ("iptables", "ip6tables")),
    ]
    with contextlib.suppress(OSError):
        paths += [
            f"{_CONF}/{name}/forwarding" for name in sorted(os.listdir(_CONF)) if name != "all"
        ]
    return {path: value for path in paths if (value := _read(path)) is not None}


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def tun_trouble(device: Path = TUN) -> str:
    """Return what keeps us from using /dev/net/tun, "" for nothing."""
    try:
        os.close(os.open(device, os.O_RDWR))
    except FileNotFoundError:
        return f"{device} is missing"
    except PermissionError:
        return f"{device} can't be opened by you"
    except OSError as error:
        return f"{device}: {error.strerror}"
    return ""


def nameservers(
    files: Iterable[Path] = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")),
) -> list[str]:
    """Return the host's DNS servers that can be reached from elsewhere, not those on its loopback.

    systemd-resolved lists the servers behind its own in the second file.
    """
    for file in files:
        lines = [line.split() for line in (_read(str(file)) or "").splitlines()]
        found = [fields[1] for fields in lines if len(fields) > 1 and fields[0] == "nameserver"]
        if good := [address for address in found if not _is_loopback(address)]:
            return good
    return []


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return True


def holds(probe: Arguments) -> bool:
    """Tell whether the effect of a step holds now.

    Args:
        probe: One of

            link NAME MAC | tun NAME | master PORT BRIDGE | up NAME
            address DEVICE ADDRESS/PREFIX | route FAMILY ARGUMENTS... | file PATH VALUE
            nft FAMILY TABLE | iptables ARGUMENTS... | process PIDFILE | not PROBE...

            An empty one never holds.

    Raises:
        PiggyError: The probe is none of these.
    """
    if not probe:
        return False
    kind, *rest = probe
    if kind == "not":
        return not holds(tuple(rest))
    if kind == "route":
        return tuple(rest[1:]) in {
            route_arguments(route) for route in routes() if family(route) == rest[0]
        }
    if kind == "address":
        found = _json(["ip", "-json", "address", "show", "dev", rest[0]], "address", check=False)
        return any(
            f"{info['local']}/{info['prefixlen']}" == rest[1]
            for entry in found
            for info in entry.get("addr_info", ())
        )
    if kind == "file":
        return _read(rest[0]) == rest[1]
    if kind == "nft":
        return run(["nft", "list", "table", *rest], check=False).returncode == 0
    if kind == "iptables":
        return run(rest, check=False).returncode == 0
    if kind == "process":
        return pid_of(rest[0]) > 0
    link = (
        _json(["ip", "-details", "-json", "link", "show", "dev", rest[0]], "link", check=False)
        or [{}]
    )[0]
    if kind == "link":
        return bool(link) and link.get("address") == rest[1]
    if kind == "tun":
        return link.get("linkinfo", {}).get("info_kind") == "tun"
    if kind == "master":
        return link.get("master") == rest[1]
    if kind == "up":
        return "UP" in link.get("flags", ())
    raise PiggyError(f"the record of net_up holds a word that is not known: '{printable(kind)}'")


def pid_of(pidfile: str) -> int:
    """Return the process that wrote a pidfile, 0 if it is gone.

    Process numbers are reused, so its command line must have --pid-file=PIDFILE.
    """
    with contextlib.suppress(OSError, ValueError):
        pid = int(read_regular(pidfile, most=64))
        if pid > 1 and os.fsencode(f"--pid-file={pidfile}") in Path(
            f"/proc/{pid}/cmdline"
        ).read_bytes().split(b"\0"):
            return pid
    return 0
