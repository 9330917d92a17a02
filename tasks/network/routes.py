"""Addresses and routes as `ip -json` prints them, and the arguments that make them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.network.steps import Arguments

FOREVER = 0xFFFFFFFF  # INFINITY_LIFE_TIME, include/net/addrconf.h
METRICS = ("mtu", "advmss", "window", "rtt", "initcwnd", "initrwnd", "quickack", "hoplimit")


def address_arguments(info: Mapping[str, Any], device: str, label: bool) -> Arguments:
    """Return the arguments after `ip address add` that give a device this address.

    Args:
        info: An entry of "addr_info".
        device: The device.
        label: Whether to keep its label. A label begins with its device's name, so it can't move to
            another device.
    """
    local = f"{info['local']}/{info['prefixlen']}"
    arguments = (
        [info["local"], "peer", f"{info['address']}/{info['prefixlen']}"]
        if "address" in info
        else [local]
    )
    arguments += ["broadcast", info["broadcast"]] if "broadcast" in info else []
    arguments += ["scope", str(info["scope"])] if info.get("scope", "global") != "global" else []
    arguments += ["label", info["label"]] if label and info.get("label", device) != device else []
    arguments += ["metric", str(info["metric"])] if "metric" in info else []
    if info.get("valid_life_time", FOREVER) != FOREVER:
        arguments += [
            "valid_lft",
            str(info["valid_life_time"]),
            "preferred_lft",
            str(info.get("preferred_life_time", 0)),
        ]
    arguments += [
        flag for flag in ("nodad", "noprefixroute", "mngtmpaddr", "home") if info.get(flag)
    ]
    return (*arguments, "dev", device)


def movable_addresses(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the addresses of a link that move with its cable.

    These are all except IPv6 link-local ones, which the kernel derives from the hardware address.

    Args:
        entry: An entry of `ip -json address`.
    """
    return [
        info
        for info in entry.get("addr_info", ())
        if "local" in info and not (info["family"] == "inet6" and info.get("scope") == "link")
    ]


def uses(route: Mapping[str, Any], device: str) -> bool:
    """Tell whether a route leaves by a device."""
    return route.get("dev") == device or any(
        hop.get("dev") == device for hop in route.get("nexthops", ())
    )


def movable_routes(routes: Sequence[Mapping[str, Any]], device: str) -> list[Mapping[str, Any]]:
    """Return the routes by a device that do not come and go with an address or the link.

    Routes through a gateway come last, since the gateway must be reachable before.
    """
    own = [
        route
        for route in routes
        if uses(route, device)
        and route.get("protocol") != "kernel"
        and route.get("table") != "local"
        and route.get("type", "unicast") not in ("multicast", "anycast", "broadcast")
    ]
    return sorted(
        own, key=lambda route: "gateway" in route or "via" in route or "nexthops" in route
    )


def route_arguments(route: Mapping[str, Any], old: str = "", new: str = "") -> Arguments:
    """Return the arguments after `ip -4|-6 route add` that make a route again.

    "expires" is left out, as the router that announces the route (RFC 4861) does so again. The
    link's state ("dead", "linkdown") is left out as well.

    Args:
        route: An entry of `ip -json route`.
        old: A device.
        new: The device that takes its place.
    """

    def device(hop: Mapping[str, Any]) -> list[str]:
        name = hop.get("dev", "")
        return ["dev", new if name == old and new else name] if name else []

    def gateway(hop: Mapping[str, Any]) -> list[str]:
        if "via" in hop:
            return ["via", hop["via"]["family"], hop["via"]["host"]]
        return ["via", hop["gateway"]] if "gateway" in hop else []

    kind = route.get("type", "unicast")
    arguments = [kind] if kind != "unicast" else []
    arguments += [route["dst"], *gateway(route), *device(route)]
    arguments += ["table", str(route["table"])] if route.get("table", "main") != "main" else []
    arguments += ["proto", str(route["protocol"])] if "protocol" in route else []
    arguments += ["scope", str(route["scope"])] if route.get("scope", "global") != "global" else []
    arguments += ["src", route["prefsrc"]] if "prefsrc" in route else []
    arguments += ["metric", str(route["metric"])] if "metric" in route else []
    for metrics in route.get("metrics", ()):
        for name in METRICS:
            arguments += [name, str(metrics[name])] if name in metrics else []
    arguments += ["pref", route["pref"]] if route.get("pref", "medium") != "medium" else []
    arguments += ["onlink"] if "onlink" in route.get("flags", ()) else []
    for hop in route.get("nexthops", ()):
        arguments += ["nexthop", *gateway(hop), *device(hop), "weight", str(hop.get("weight", 1))]
        arguments += ["onlink"] if "onlink" in hop.get("flags", ()) else []
    return tuple(arguments)


def family(route: Mapping[str, Any]) -> str:
    """Return "-4" or "-6", as `ip` takes it.

    `state.routes` adds the family, since iproute2's JSON lacks it.
    """
    return str(route.get("family", "-4"))
