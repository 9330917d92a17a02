"""A small internet in network namespaces, for tests that are root: made for a test, and gone after
it.

    host (eth0 10.77.0.2) --- (lan 10.77.0.1) router, NAT (wan 203.0.113.1) --- (eth0 203.0.113.10)
    inet: DNS and web server

The host has, before anything is done, what a host may have: a bridge, addresses and routes of
several kinds, firewall rules and a routing rule. `snapshot` is its whole state; a test compares it
before and after.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tasks.network import record
from tasks.system.process import clean_env

TOP = Path(__file__).resolve().parents[2]
PAGE = "greetings from the internet\n"
_SNAPSHOT = """
    echo @@@links; ip -json link
    echo @@@addresses; ip -json address
    echo @@@routes; ip -json -details -4 route show table all
    echo @@@routes6; ip -json -details -6 route show table all
    echo @@@rules; ip rule; ip -6 rule
    echo @@@nft; nft list ruleset
    echo @@@sysctls
    cd /proc/sys/net && grep -rs . "$PWD/ipv4/conf" "$PWD/ipv6/conf" "$PWD/ipv4/ip_forward" \\
        "$PWD/bridge" | grep -v stable_secret | sort"""
_INSIDE = 'mount -t sysfs none /sys && mount --bind "$0" /etc/resolv.conf && exec "$@"'


class Topology:
    """Namespaces NAME-host, NAME-router and NAME-inet, with servers in them."""

    def __init__(self, folder: Path, host_link: str = "eth0") -> None:
        self.folder, self.link = folder, host_link
        self.names = {role: f"pg{os.getpid()}-{role}" for role in ("host", "router", "inet")}
        self.servers: list[subprocess.Popen] = []
        self.resolv = folder / "resolv.conf"
        self.resolv.write_text("nameserver 203.0.113.10\n")

    def prefix(self, role: str) -> list[str]:
        """The words before a command that put it into a namespace, with its own /sys and the test's
        resolv.conf."""
        return [
            "nsenter",
            f"--net=/run/netns/{self.names[role]}",
            "unshare",
            "--mount",
            "sh",
            "-c",
            _INSIDE,
            str(self.resolv),
        ]

    def run(self, role: str, *argv: str, status: int | None = 0, stdin: str = "") -> str:
        done = subprocess.run(
            [*self.prefix(role), *argv],
            text=True,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=TOP,
            env=clean_env(),
            check=False,
            timeout=120,
        )
        assert status is None or done.returncode == status, f"{argv}: {done.stdout}"
        return done.stdout

    def script(self, role: str, lines: str) -> None:
        self.run(role, "sh", "-ec", lines)

    def serve(self, role: str, *argv: str) -> None:
        self.servers.append(
            subprocess.Popen(
                [*self.prefix(role), *argv],
                cwd=self.folder,
                env=clean_env(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def __enter__(self) -> Topology:
        for name in self.names.values():
            subprocess.run(["ip", "netns", "add", name], check=True, env=clean_env())
        with contextlib.ExitStack() as undo:
            undo.callback(self.__exit__)
            host, router, inet = (self.names[role] for role in ("host", "router", "inet"))
            for words in (
                f"link add {self.link} netns {host} type veth peer name lan netns {router}",
                f"link add wan netns {router} type veth peer name eth0 netns {inet}",
            ):
                subprocess.run(["ip", *words.split()], check=True, env=clean_env())
            self.script(
                "inet",
                "ip link set lo up; ip link set eth0 up; ip addr add 203.0.113.10/24 dev eth0",
            )
            self.script(
                "router",
                "ip link set lo up; ip link set lan up; ip link set wan up;ip addr add 10.77.0.1/24"
                " dev lan;ip addr add 203.0.113.1/24 dev wan; echo 1 >"
                " /proc/sys/net/ipv4/ip_forward; nft add table ip r;nft add chain ip r p '{ type"
                " nat hook postrouting priority 100; }';nft add rule ip r p oifname wan masquerade",
            )
            (self.folder / "index.html").write_text(PAGE)
            self.serve("inet", sys.executable, "-m", "http.server", "80", "--bind", "203.0.113.10")
            self.serve(
                "inet",
                "dnsmasq",
                "--no-daemon",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--host-record=www.example.test,203.0.113.10",
                "--local=/example.test/",
                "--bind-interfaces",
                "--interface=eth0",
            )
            self.serve(
                "router",
                "dnsmasq",
                "--no-daemon",
                "--conf-file=/dev/null",
                "--port=0",
                "--bind-interfaces",
                "--interface=lan",
                "--dhcp-range=10.77.0.100,10.77.0.150,255.255.255.0",
                "--dhcp-authoritative",
                "--dhcp-option=option:dns-server,203.0.113.10",
                f"--dhcp-leasefile={self.folder}/router-leases",
            )
            self.host()
            self.wait()
            undo.pop_all()
        return self

    def host(self) -> None:
        """Give the host what a host may have."""
        link = self.link
        self.script(
            "host",
            f"""
            ip link set lo up; ip link set {link} up
            echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range
            ip addr add 10.77.0.2/24 brd + dev {link} metric 50; ip addr add 10.77.0.3/24 dev {link}
            ip addr add 192.0.2.77/32 dev {link} scope link
            ip -6 addr add 2001:db8:77::2/64 dev {link} nodad
            ip route add default via 10.77.0.1 dev {link} proto static src 10.77.0.2 \\
                metric 100 mtu 1400
            ip route add 198.51.100.0/24 via 10.77.0.1 dev {link}
            ip route add 192.0.2.99/32 dev {link} scope link
            ip route add default via 10.77.0.1 dev {link} table 77
            ip -6 route add default via 2001:db8:77::1 dev {link} proto static metric 512
            ip rule add from 10.77.0.3 lookup 77 priority 1000
            ip link add br9 type bridge; ip addr add 172.20.0.1/16 dev br9; ip link set br9 up
            ip link add v8 type veth peer name v9; ip link set v9 master br9
            ip link set v8 up; ip link set v9 up
            echo 1 > /proc/sys/net/ipv4/conf/v8/forwarding
            echo 0 > /proc/sys/net/ipv4/conf/all/accept_redirects""",
        )
        self.run(
            "host",
            "nft",
            "-f",
            "-",
            stdin="""
            add table inet foreign
            add chain inet foreign in { type filter hook input priority 0; policy accept; }
            add rule inet foreign in ip saddr 192.0.2.66 drop
            add set inet foreign s { type ipv4_addr; }
            add element inet foreign s { 192.0.2.1 }
            add table ip nat
            add chain ip nat post { type nat hook postrouting priority 100; }
            add rule ip nat post ip saddr 172.20.0.0/16 masquerade
            """,
        )

    def wait(self) -> None:
        until = time.monotonic() + 20
        while PAGE.strip() not in self.fetch():
            assert time.monotonic() < until, "the test's internet does not work"
            time.sleep(0.3)

    def fetch(self) -> str:
        """The internet's page as the host gets it, or why not."""
        code = (
            "import urllib.request as u; print(u.urlopen('http://www.example.test/',"
            " timeout=5).read().decode())"
        )
        return self.run("host", sys.executable, "-c", code, status=None)

    def settled(self) -> dict[str, object]:
        """The snapshot when no IPv6 address is still being tried (RFC 4862, 5.4)."""
        until = time.monotonic() + 10
        while "tentative" in self.run("host", "ip", "-6", "address") and time.monotonic() < until:
            time.sleep(0.1)
        return self.snapshot()

    def snapshot(self) -> dict[str, object]:
        """Everything of the host's network that can be seen, without what changes by itself."""
        said = self.run("host", "sh", "-c", _SNAPSHOT)
        parts = dict(part.split("\n", 1) for part in said.split("@@@")[1:])
        found: dict[str, object] = {}
        for name, text in parts.items():
            if name in ("links", "addresses", "routes", "routes6"):
                found[name] = [
                    self._steady(name, entry) for entry in json.loads(text.strip() or "[]")
                ]
            else:
                found[name] = re.sub(r"packets \d+ bytes \d+", "", text)
        return found

    @staticmethod
    def _steady(name: str, entry: dict) -> dict:
        for info in entry.get("addr_info", ()):
            info.pop("valid_life_time", None)
            info.pop("preferred_life_time", None)
        keys = ("ifname", "flags", "mtu", "address", "master", "linkinfo")
        return {key: entry[key] for key in keys if key in entry} if name == "links" else entry

    def unchanged(self, before: dict[str, object]) -> None:
        """Assert that the settled state is what it was; name only what is not."""
        for key, now in self.settled().items():
            was = before[key]
            if now != was:
                old, new = (one.splitlines() if isinstance(one, str) else one for one in (was, now))
                gone, come = (
                    [one for one in old if one not in new],
                    [one for one in new if one not in old],
                )
                raise AssertionError(f"{key}\nbefore: {gone}\nafter:  {come}")

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        for name in self.names.values():  # what a failed test left behind goes, too
            left = subprocess.run(
                ["ip", "netns", "pids", name],
                check=False,
                env=clean_env(),
                text=True,
                capture_output=True,
            )
            for pid in left.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(FileNotFoundError):
                record.remove(record.RUN / str(os.stat(f"/run/netns/{name}").st_ino))
            subprocess.run(["ip", "netns", "del", name], check=False, env=clean_env())
