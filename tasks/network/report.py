"""The lines of `net_status`: the bridge, its ports, leases and counters, and the traps."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.config.settings import Settings
from tasks.network import record, state, traps
from tasks.network.ip_json import dig
from tasks.network.nat import TABLE
from tasks.network.state import State
from tasks.network.steps import Plan
from tasks.system.files import read_regular
from tasks.system.terminal import printable, size

_LONGEST = 1 << 20  # bytes of dnsmasq's file of leases that are read
_WIDEST = 200  # characters of a lease's line, since a guest chooses its own name
Line = tuple[str, str]


def lines(settings: Settings) -> Iterator[Line]:
    """Yield all lines, each a keyword and a text."""
    host, last = state.observe(), record.read(record.place())
    plan = last.plan if last and last.boot == record.boot_id() else None
    bridge = plan.bridge if plan else settings.bridge
    if last is None:
        yield "net", f"nothing of ours is up (net={settings.net})"
    elif plan is None:
        yield "net", "a reboot undid what net_up did; 'doit net_down' forgets it"
    else:
        whole = (
            "up"
            if last.complete
            else f"interrupted at step {last.begun} of {len(plan.steps)}: doit net_down"
        )
        yield "net", f"{plan.mode}, {whole}"
    if host.link(bridge):
        yield from of_bridge(host, bridge)
    if plan:
        yield from of_leases(plan)
        yield from of_rules(host)
    yield from of_traps(host, plan, settings)


def of_traps(state: State, plan: Plan | None, settings: Settings) -> Iterator[Line]:
    """Yield the traps, each with its remedy."""
    if state.nft is None and "nft" in state.tools:
        yield "note", "only root sees the firewall's rules: sudo nft list ruleset"
    address = (
        plan.address if plan else settings.bridge_address if settings.net in ("nat", "lab") else ""
    )
    found = traps.traps(state, plan, plan.bridge if plan else settings.bridge, address)
    for trap in found:
        yield "TRAP", trap.message
        yield "", f"remedy: {trap.remedy}"
    if not found:
        yield "traps", "none found"


def of_bridge(state: State, bridge: str) -> Iterator[Line]:
    """Yield a bridge and its ports, each with its state and counters."""
    addresses = [
        f"{info['local']}/{info['prefixlen']}"
        for info in state.address(bridge).get("addr_info", ())
        if info["family"] == "inet"
    ]
    yield bridge, f"{' '.join(addresses) or 'no address'}, {counters(state.link(bridge))}"
    for port in state.ports(bridge):
        link = state.link(port)
        what = "tap" if state.kind(port) == "tun" else state.kind(port) or "card"
        plugged = (
            ""
            if what != "tap"
            else ", a guest is plugged in"
            if "LOWER_UP" in link.get("flags", ())
            else ", free"
        )
        yield f"  {port}", f"{what}{plugged}, {counters(link)}"


def counters(link: Mapping[str, Any]) -> str:
    """Return a link's counters in words; drops only if there are any."""
    stats = link.get("stats64", {})
    text = []
    for key, word in (("rx", "received"), ("tx", "sent")):
        counts = stats.get(key, {})
        dropped = f" ({counts['dropped']} dropped)" if counts.get("dropped") else ""
        text.append(f"{size(counts.get('bytes', 0))} {word}{dropped}")
    return ", ".join(text)


def of_leases(plan: Plan) -> Iterator[Line]:
    """Yield dnsmasq's leases.

    Each line of the file is "EXPIRY MAC ADDRESS NAME CLIENT-ID" (dnsmasq(8), --dhcp-leasefile).
    """
    try:
        text = (
            read_regular(plan.leases, most=_LONGEST).decode(errors="replace") if plan.leases else ""
        )
    except OSError:
        return
    for line in text.splitlines():
        fields = line.split()
        # Eleven digits reach the year 5138, within what datetime takes.
        if len(fields) >= 4 and re.fullmatch("[0-9]{1,11}", fields[0]):
            until = datetime.datetime.fromtimestamp(int(fields[0]), datetime.UTC).strftime(
                "until %H:%M UTC"
            )
            yield "lease", printable(f"{fields[2]}  {fields[1]}  {fields[3]}  {until}")[:_WIDEST]


def of_rules(state: State) -> Iterator[Line]:
    """Yield how many packets our rules have counted."""
    for entry in state.nft or ():
        rule = entry.get("rule", {})
        if rule.get("table") == TABLE:
            counts = [
                next(
                    (
                        found
                        for part in rule["expr"]
                        if isinstance(found := dig(part, "counter", what), int)
                    ),
                    0,
                )
                for what in ("packets", "bytes")
            ]
            verdict = next(
                (
                    name
                    for part in rule["expr"]
                    for name in ("masquerade", "accept", "drop")
                    if name in part
                ),
                "",
            )
            yield "rule", f"{rule['chain']} {verdict}: {counts[0]} packets, {size(counts[1])}"
