"""The output of `ip -json` and `nft -json`, read with the types that the other modules rely on.

Versions differ, and other programs have the same names. An entry of `ip` holds the keys listed here
and no others.
"""

from __future__ import annotations

import ipaddress
from typing import Any, TypedDict

import msgspec

from tasks.system.errors import PiggyError
from tasks.system.terminal import printable

_Metrics = dict[str, int | str | list[str]]


class _Count(TypedDict, total=False):
    bytes: int
    dropped: int


class _Stats(TypedDict, total=False):
    rx: _Count
    tx: _Count


class _Kind(TypedDict, total=False):
    info_kind: str


class _Via(TypedDict):
    family: str
    host: str


class _Link(TypedDict, total=False):
    """A link. Source: print_linkinfo() in ip/ipaddress.c of iproute2."""

    ifname: str
    master: str
    linkinfo: _Kind
    link_type: str
    address: str
    mtu: int
    flags: list[str]
    stats64: _Stats


class _Info(TypedDict, total=False):
    """An address. Source: print_addrinfo() in ip/ipaddress.c of iproute2."""

    family: str
    local: str
    address: str
    prefixlen: int
    broadcast: str
    scope: str
    label: str
    metric: int
    valid_life_time: int
    preferred_life_time: int
    nodad: bool
    noprefixroute: bool
    mngtmpaddr: bool
    home: bool


class _Address(TypedDict, total=False):
    """A link with its addresses."""

    ifname: str
    addr_info: list[_Info]


class _Hop(TypedDict, total=False):
    """One of several next hops of a route."""

    dev: str
    via: _Via
    gateway: str
    weight: int
    flags: list[str]


class _Route(_Hop, total=False):
    """A route. Source: print_route() in ip/iproute.c of iproute2."""

    dst: str
    type: str
    table: str
    protocol: str
    scope: str
    prefsrc: str
    metric: int
    metrics: list[_Metrics]
    pref: str
    nexthops: list[_Hop]


_KINDS: dict[str, tuple[Any, str]] = {
    "link": (list[_Link], "ifname"),
    "address": (list[_Address], "ifname"),
    "route": (list[_Route], "dst"),
}


def entries(text: str, kind: str, command: str) -> list[dict[str, Any]]:
    """Read the output of an iproute2 command.

    Left out are entries without a name (older versions print {} for what they filter out), and
    malformed addresses.

    Args:
        text: The output.
        kind: "link", "address" or "route".
        command: The command, for messages.

    Raises:
        PiggyError: The output is no list of that kind.
    """
    shape, name = _KINDS[kind]
    try:
        found = msgspec.json.decode(text.strip().encode() or b"[]", type=shape)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise PiggyError(
            f"'{command}' prints what is no list of its kind: {printable(str(error))[:200]}",
            "is it the ip of iproute2?",
        ) from error
    for entry in found:
        if "addr_info" in entry:
            entry["addr_info"] = [info for info in entry["addr_info"] if _is_address(info)]
    return [entry for entry in found if name in entry]


def _is_address(info: _Info) -> bool:
    try:
        found = ipaddress.ip_interface(f"{info['local']}/{info['prefixlen']}")
        return found.version == {"inet": 4, "inet6": 6}[info["family"]]
    except (KeyError, ValueError):
        return False


def ruleset(text: str) -> list[dict[str, Any]] | None:
    """Read the output of `nft -json list ruleset`.

    Returns:
        Its tables, chains and rules; None if the output is something else. In a rule each part of
        "expr" is a dict; deeper parts are read by `dig`.
    """
    try:
        found = msgspec.json.decode(text.encode(), type=dict[str, list[dict[str, Any]]])["nftables"]
    except (msgspec.MsgspecError, ValueError, KeyError, RecursionError):
        return None
    kept = []
    for entry in found:
        for kind, names in (
            ("table", ("family", "name")),
            ("chain", ("family", "table", "name")),
            ("rule", ("family", "table", "chain")),
        ):
            item = entry.get(kind)
            if isinstance(item, dict) and all(isinstance(item.get(key), str) for key in names):
                parts = item.get("expr")
                kept.append(
                    {
                        kind: {
                            **item,
                            "expr": [part for part in parts if isinstance(part, dict)]
                            if isinstance(parts, list)
                            else [],
                        }
                    }
                )
    return kept


def dig(entry: object, *names: str) -> Any:
    """Return the value under these nested keys, None if there is none."""
    for name in names:
        entry = entry.get(name) if isinstance(entry, dict) else None
    return entry
