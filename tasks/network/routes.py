"""Addresses and routes as iproute2 prints them (`ip -json`), and the words that make them anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.network.steps import Words

FOREVER = 0xFFFFFFFF  # INFINITY_LIFE_TIME, include/net/addrconf.h
METRICS = ("mtu", "advmss", "window", "rtt", "initcwnd", "initrwnd", "quickack", "hoplimit")


def address_words(info: Mapping[str, Any], device: str, label: bool) -> Words:
    """Return the words after `ip address add` that give `device` this address.

    info:  an entry of "addr_info".
    label: keep its label, too. A label begins with the name of its own device, so it can't follow
        to another.
    """
    local = f"{info['local']}/{info['prefixlen']}"
    words = (
        [info["local"], "peer", f"{info['address']}/{info['prefixlen']}"]
        if "address" in info
        else [local]
    )
    words += ["broadcast", info["broadcast"]] if "broadcast" in info else []
    words += ["scope", str(info["scope"])] if info.get("scope", "global") != "global" else []
    words += ["label", info["label"]] if label and info.get("label", device) != device else []
    words += ["metric", str(info["metric"])] if "metric" in info else []
    if info.get("valid_life_time", FOREVER) != FOREVER:
        words += [
            "valid_lft",
            str(info["valid_life_time"]),
            "preferred_lft",
            str(info.get("preferred_life_time", 0)),
        ]
    words += [flag for flag in ("nodad", "noprefixroute", "mngtmpaddr", "home") if info.get(flag)]
    return (*words, "dev", device)


def movable_addresses(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the addresses of an entry of `ip -json address` that go where its cable goes.

    All but IPv6 link-local ones, which the kernel makes of the hardware address.
    """
    return [
        info
        for info in entry.get("addr_info", ())
        if "local" in info and not (info["family"] == "inet6" and info.get("scope") == "link")
    ]


def uses(route: Mapping[str, Any], device: str) -> bool:
    """Does a route leave by `device`?"""
    return route.get("dev") == device or any(
        hop.get("dev") == device for hop in route.get("nexthops", ())
    )


def movable_routes(routes: Sequence[Mapping[str, Any]], device: str) -> list[Mapping[str, Any]]:
    """Return the routes by `device` that do not come and go with an address or the link.

    Those come first that others may need: a gateway must be reachable before a route goes by
    it.
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


def route_words(route: Mapping[str, Any], old: str = "", new: str = "") -> Words:
    """Return the words after `ip -4|-6 route add` that make this route, by the device `new` where it was `old`.

    An "expires" is left out: who announces the route (RFC 4861) will do so again. So is the state
    of the link ("dead", "linkdown").
    """  # noqa: E501

    def device(hop: Mapping[str, Any]) -> list[str]:
        name = hop.get("dev", "")
        return ["dev", new if name == old and new else name] if name else []

    def gateway(hop: Mapping[str, Any]) -> list[str]:
        if "via" in hop:
            return ["via", hop["via"]["family"], hop["via"]["host"]]
        return ["via", hop["gateway"]] if "gateway" in hop else []

    kind = route.get("type", "unicast")
    words = [kind] if kind != "unicast" else []
    words += [route["dst"], *gateway(route), *device(route)]
    words += ["table", str(route["table"])] if route.get("table", "main") != "main" else []
    words += ["proto", str(route["protocol"])] if "protocol" in route else []
    words += ["scope", str(route["scope"])] if route.get("scope", "global") != "global" else []
    words += ["src", route["prefsrc"]] if "prefsrc" in route else []
    words += ["metric", str(route["metric"])] if "metric" in route else []
    for metrics in route.get("metrics", ()):
        for name in METRICS:
            words += [name, str(metrics[name])] if name in metrics else []
    words += ["pref", route["pref"]] if route.get("pref", "medium") != "medium" else []
    words += ["onlink"] if "onlink" in route.get("flags", ()) else []
    for hop in route.get("nexthops", ()):
        words += ["nexthop", *gateway(hop), *device(hop), "weight", str(hop.get("weight", 1))]
        words += ["onlink"] if "onlink" in hop.get("flags", ()) else []
    return tuple(words)


def family(route: Mapping[str, Any]) -> str:
    """Return "-4" or "-6", as `ip` takes it.

    `netstate.observe` notes it, for iproute2's JSON does not.
    """
    return str(route.get("family", "-4"))
