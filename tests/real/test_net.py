"""The network for real: booted guests in a small internet of namespaces (see `topology`), and what
may go wrong.

Whatever changes a network does so in namespaces that the test made; that takes root. Without it
those tests are skipped.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import skips
from browser import Browser
from terminals import powered_off, terminal
from topology import PAGE, TOP, Topology

from tasks.system.process import clean_env
from tests.real.conftest import Checkout

pytestmark = pytest.mark.real
NEEDED = ("ip", "nft", "dnsmasq", "nsenter", "unshare")
BOTH = {"nat": ["net=nat"], "bridged": ["net=bridged", "uplink=eth0"]}


def _missing(*tools: str) -> list[str]:
    return [tool for tool in tools if not shutil.which(tool, path=clean_env()["PATH"])]


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Topology]:
    if os.geteuid():
        pytest.skip("namespaces and routes take root")
    if missing := _missing(*NEEDED):
        pytest.skip(f"not installed: {', '.join(missing)} ('doit net=nat setup' does that)")
    with Topology(tmp_path) as topology:
        yield topology


@pytest.fixture
def pc(pc_from_store: Checkout) -> Checkout:
    return pc_from_store


def in_host(net: Topology, pc: Checkout, *words: str, status: int = 0) -> str:
    """Run doit in the test's host."""
    done = subprocess.run(
        [*net.prefix("host"), *pc.argv(*words)],
        cwd=pc.top,
        env=pc.variables(),
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == status, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


@contextlib.contextmanager
def shell(pc: Checkout, prefix: list[str], *words: str) -> Iterator[Any]:
    """Give somebody's terminal with a guest's shell on it."""
    argv = [*prefix, *pc.argv("qemu_boot", *words)]
    with terminal(argv, pc.top, pc.variables(), pc.top / "boot.log") as guest:
        guest.expect("piggyback: up")
        guest.expect("# ")
        guest.sendline("stty -echo; dmesg -n 1")
        guest.expect("# ")
        yield guest
        powered_off(guest)


def ask(guest: Any, command: str) -> str:
    """Run a command in the guest; it must succeed."""
    guest.sendline(f"{command}; echo status:$?:")
    guest.expect(r"status:(\d+):")
    assert guest.match[1] == "0", guest.before
    return str(guest.before)


def browse(guest: Any) -> None:
    """Resolve a name, ping, and fetch a page."""
    assert "203.0.113.10" in ask(guest, "nslookup www.example.test")
    assert " 0% packet loss" in ask(guest, "ping -c 2 -W 5 www.example.test")
    assert PAGE.strip() in ask(guest, "wget -q -T 10 -O - http://www.example.test/")


def test_user_mode_passes_its_checks_and_leaves_busy_ports_alone(pc: Checkout) -> None:
    with socket.socket() as busy:
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody else has it: as good
            busy.bind(("127.0.0.1", 8080))
            busy.listen()
        said = pc.doit("qemu_test", "forward=http=80 ssh=22")
    port = re.search(r"http://127.0.0.1:(\d+)/ is the guest's http \(port 80\)", said)
    assert port
    assert port[1] != "8080"
    assert re.search(r"127.0.0.1:80\d\d is the guest's ssh \(port 22\)", said)
    for check in ("network", "gateway", "fetch", "httpd"):
        assert f"=== {check} ok" in said


def test_a_static_address_by_the_kernels_command_line(pc: Checkout) -> None:
    said = pc.doit("qemu_test", "address=10.0.2.77")
    assert "=== network ok: eth0 has 10.0.2.77/24, gateway 10.0.2.2" in said
    assert "=== httpd ok" in said


def test_without_a_card_there_is_none(pc: Checkout) -> None:
    said = pc.doit("qemu_test", "net=none")
    assert "=== nic" not in said
    assert "=== network" not in said


@pytest.mark.parametrize("mode", BOTH)
def test_a_guest_browses_and_everything_is_as_before(
    net: Topology, pc: Checkout, mode: str
) -> None:
    before = net.settled()
    said = in_host(net, pc, *BOTH[mode], "net_up", "--dry-run", "--yes")
    assert "ip link add name piggy0" in said
    net.unchanged(before)
    in_host(net, pc, *BOTH[mode], "net_up", "--yes")
    assert PAGE.strip() in net.fetch()
    assert "nothing to do" in in_host(net, pc, *BOTH[mode], "net_up")
    said = in_host(net, pc, f"net={mode}", "qemu_test")
    for check in ("network", "gateway", "fetch", "httpd"):
        assert f"=== {check} ok" in said
    with shell(pc, net.prefix("host"), f"net={mode}") as guest:
        browse(guest)
        said = in_host(net, pc, f"net={mode}", "net_status")
        assert re.search(r"piggy0-tap0 +tap, a guest is plugged in, [\d,]+ B received", said)
        if mode == "nat":
            assert re.search(r"lease +192\.168\.135\.\d+  52:54:00:.*piggyback", said)
            assert re.search(r"rule +postrouting masquerade: [1-9]\d* packets", said)
        else:
            assert re.search(r"  eth0 +veth", said)
            assert "10.77.0.1" in ask(guest, "ip -4 addr show scope global")
    in_host(net, pc, "net_down")
    net.unchanged(before)
    assert "nothing is up" in in_host(net, pc, "net_down")
    net.unchanged(before)


def test_two_guests_of_a_lab_see_each_other_and_the_internet(net: Topology, pc: Checkout) -> None:
    if not (way := [tool for tool in ("pasta", "slirp4netns") if not _missing(tool)]):
        pytest.skip("neither pasta nor slirp4netns is installed")
    before = net.settled()
    said = in_host(net, pc, "net=lab", "guests=2", "qemu_test")
    assert re.search(r"=== neighbour 192\.168\.135\.\d+ ok", said)
    for check in ("network", "gateway", "fetch", "httpd"):
        assert f"=== {check} ok" in said
    with shell(pc, net.prefix("host"), "net=lab", "guests=2") as guest:
        assert way[0] in ("pasta", "slirp4netns")
        browse(guest)
        found = re.findall(r"guest 2's console: .* unix:(\S+)", (pc.top / "boot.log").read_text())
        assert os.stat(os.path.dirname(found[-1])).st_mode & 0o777 == 0o700
        with socket.socket(socket.AF_UNIX) as second:
            second.settimeout(60)
            second.connect(found[-1])
            heard = ""
            while " 0% packet loss" not in heard:
                second.sendall(b"ping -c 1 -W 5 192.168.135.64\n")
                time.sleep(2)
                heard += second.recv(1 << 16).decode(errors="replace")
    net.unchanged(before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_of_a_lab_outlives_its_command(number: int) -> None:
    if missing := _missing(*NEEDED):
        pytest.skip(f"not installed: {', '.join(missing)}")
    mark = f"piggylab{os.getpid()}"
    code = (
        "import subprocess, time; from tasks.network import lab as netlab\n"
        "from tasks.network.plan import Request\n"
        f"with netlab.lab(Request(bridge='{mark[-9:]}')) as lab:\n   "
        " subprocess.Popen([*lab.prefix, 'sleep', '99'])\n    print('up', lab.prefix[-2],"
        " flush=True); time.sleep(99)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=TOP, stdout=subprocess.PIPE, text=True, env=clean_env()
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    if not said.startswith("up"):
        process.wait()
        skips.this_host("no user namespaces")
    inner = int(said.split()[1])
    space = os.readlink(f"/proc/{inner}/ns/net")
    until = time.monotonic() + 5
    while "sleep\n" not in _inside(space) and time.monotonic() < until:
        time.sleep(0.05)
    assert {"sleep\n", "dnsmasq\n"} <= set(_inside(space))
    process.send_signal(number)
    process.wait()
    until = time.monotonic() + 5
    while _inside(space) and time.monotonic() < until:
        time.sleep(0.05)
    assert _inside(space) == []


def _inside(space: str) -> list[str]:
    """The processes in a network namespace, or with a hand on it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            hands = {os.readlink(fd) for fd in (folder / "fd").iterdir()} | {
                os.readlink(folder / "ns" / "net")
            }
            if space in hands:
                found.append((folder / "comm").read_text())
    return found


def test_a_lab_for_somebody_without_any_right() -> None:
    """As nobody: a bridge, NAT and DHCP in namespaces, and nothing outside. /dev/net/tun is open to
    all, as udev has it."""
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    if missing := _missing(*NEEDED, "setpriv"):
        pytest.skip(f"not installed: {', '.join(missing)}")
    code = (
        "import subprocess, sys; sys.path.insert(0, '.')\nfrom tasks.network import lab as netlab\n"
        "from tasks.network.plan import Request\nwith netlab.lab(Request(guests=2)) as lab:\n   "
        " subprocess.Popen([*lab.prefix, 'sleep', '99'])\n    print(subprocess.run([*lab.prefix,"
        " 'ip', '-br', 'link'], capture_output=True, text=True).stdout)"
    )
    public = Path("/tmp") / f"piggyback-test-{os.getpid()}"
    shutil.copytree(TOP / "tasks", public / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(msgspec.__file__).parent, public / "msgspec")
    system = Path(f"/usr/bin/python3.{sys.version_info[1]}")
    python = str(system) if system.exists() else sys.executable
    if subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", python, "-c", ""], check=False
    ).returncode:
        skips.this_host(f"{python} is not for everybody")
    try:
        inside = (
            'mknod "$0" c 10 200 && chmod 666 "$0" && mount --bind "$0" /dev/net/tun && exec "$@"'
        )
        done = subprocess.run(
            [
                "unshare",
                "--mount",
                "sh",
                "-c",
                inside,
                str(public / "tun"),
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                python,
                "-B",
                "-c",
                code,
            ],
            cwd=public,
            text=True,
            env={**clean_env(), "HOME": str(public)},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert "piggy0-tap1" in done.stdout, done.stderr
    finally:
        shutil.rmtree(public)


ATTACH = """
import fcntl, os, struct  # include/uapi/linux/if_tun.h: TUNSETIFF, IFF_TAP | IFF_NO_PI
request = struct.pack("16sH", b"piggy0-tap0", 0x1002)
fcntl.ioctl(os.open("/dev/net/tun", os.O_RDWR), 0x400454ca, request)
"""


def test_the_tap_is_the_users_and_nobody_elses(net: Topology, pc: Checkout) -> None:
    before = net.settled()
    pc.env["SUDO_UID"] = "65534"  # as sudo says whose terminal it is
    try:
        in_host(net, pc, "net=nat", "net_up")
    finally:
        del pc.env["SUDO_UID"]
    inside = 'mknod "$0" c 10 200 && chmod 666 "$0" && mount --bind "$0" /dev/net/tun && exec "$@"'
    for uid, status in (("65534", 0), ("65533", 1)):
        said = net.run(
            "host",
            "unshare",
            "--mount",
            "sh",
            "-c",
            inside,
            str(net.folder / f"tun{uid}"),
            "setpriv",
            f"--reuid={uid}",
            "--clear-groups",
            "--inh-caps=-all",
            shutil.which("python3", path="/usr/bin") or "python3",
            "-c",
            ATTACH,
            status=status,
        )
        assert ("Operation not permitted" in said) == bool(status)
    in_host(net, pc, "net_down")
    net.unchanged(before)


def test_without_root_and_sudo_it_says_what_to_type(net: Topology, pc: Checkout) -> None:
    before = net.settled()
    code = (
        "import os, sys; sys.path.insert(0, '.'); os.geteuid = lambda: 1000; import shutil; which ="
        " shutil.which\nshutil.which = lambda name, **more: None if name == 'sudo' else which(name,"
        " **more)\nsys.argv = ['doit', 'net=nat', 'net_up']\nfrom doit.doit_cmd import DoitMain;"
        " sys.exit(DoitMain().run(sys.argv[1:]))"
    )
    done = subprocess.run(
        [*net.prefix("host"), sys.executable, "-c", code],
        cwd=pc.top,
        env=pc.variables(),
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "net_up needs root" in said
    assert "as root: cd " in said
    assert "tasks.network.apply up " in said
    net.unchanged(before)


STEPS = """
import os, sys
from tasks.network import apply, plan, record, state
from tasks.system.errors import PiggyError
from tasks.network.plan import Request
mode, how, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
folder, uplink = record.place(), "eth0" if mode == "bridged" else ""
request = Request(run_dir=str(folder), uplink=uplink, consent=True, guests=2)
made = getattr(plan, mode)(state.observe(), request)
real, done = apply.do, []
def do(words, stdin, patience):
    chosen = number < len(made.steps) and words == made.steps[number].do
    if chosen:
        if how == "before": os.kill(os.getpid(), 9)
        if how == "fail": raise PiggyError("made to fail")
    real(words, stdin, patience)
    if chosen and how == "after": os.kill(os.getpid(), 9)
apply.do = do
if how == "count": print(len(made.steps)); sys.exit()
try:
    apply.up(made, folder, lambda _: None)
except PiggyError as error:
    print(error); sys.exit(3)
"""


@pytest.mark.parametrize(
    ("mode", "how"),
    [
        ("nat", "fail"),
        ("nat", "after"),
        ("bridged", "after"),
        pytest.param("nat", "before", marks=pytest.mark.long),
        pytest.param("bridged", "fail", marks=pytest.mark.long),
        pytest.param("bridged", "before", marks=pytest.mark.long),
    ],
)
def test_a_fault_at_each_step(net: Topology, mode: str, how: str) -> None:
    """A step that fails is rolled back; after kill -9 before or after a step, net_down puts
    everything back."""
    net.script(
        "host", "for file in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 >$file; done"
    )  # not to wait each time
    before = net.settled()
    python = ("env", f"PYTHONPATH={TOP}", sys.executable, "-B")
    for number in range(int(net.run("host", *python, "-c", STEPS, mode, "count", "0"))):
        net.run(
            "host", *python, "-c", STEPS, mode, how, str(number), status=3 if how == "fail" else -9
        )
        if how != "fail":
            net.run("host", *python, "-m", "tasks.network.apply", "down")
        print(f"after step {number}")
        net.unchanged(before)
        assert "nothing is up" in net.run("host", *python, "-m", "tasks.network.apply", "down")


def test_an_interrupted_net_up_can_be_started_again(net: Topology, pc: Checkout) -> None:
    before = net.settled()
    python = ("env", f"PYTHONPATH={TOP}", sys.executable, "-B")
    net.run("host", *python, "-c", STEPS, "nat", "after", "3", status=None)
    said = in_host(net, pc, "net=nat", "net_status")
    assert "interrupted at step 4 of" in said
    said = in_host(net, pc, "net=nat", "net_up")
    assert "an earlier one was interrupted" in said
    net.run("host", "nft", "delete", "table", "ip", "piggyback")  # something reloaded the rules
    said = in_host(net, pc, "net=nat", "net_status")
    assert "our nftables table 'piggyback' is gone" in said
    in_host(net, pc, "net=nat", "net_up")
    assert "table ip piggyback" in net.run("host", "nft", "list", "ruleset")
    net.run("host", "ip", "link", "del", "piggy0")  # somebody tidied up
    in_host(net, pc, "net_down")
    net.unchanged(before)


def test_names_and_networks_that_are_taken(net: Topology, pc: Checkout) -> None:
    before = net.settled()
    assert "there is a bridge called 'br9' already, and it is not ours" in in_host(
        net, pc, "net=nat", "bridge=br9", "net_up", status=1
    )
    assert "172.20.5.0/24 is taken: br9 has 172.20.0.0/16" in in_host(
        net, pc, "net=nat", "bridge_address=172.20.5.1/24", "net_up", status=1
    )
    said = in_host(net, pc, "net=bridged", "uplink=eth0", "net_up", status=1)
    assert "eth0 carries the only default route" in said
    assert "--yes" in said
    said = in_host(net, pc, "net=bridged", "uplink=eth7", "net_up", status=1)
    assert "Did you mean 'eth0'?" in said
    assert "net=nat bridge=piggy0 is not up" in in_host(net, pc, "net=nat", "qemu_test", status=1)
    net.unchanged(before)


def test_a_bridge_that_is_there_only_gets_a_tap(net: Topology, pc: Checkout) -> None:
    before = net.settled()
    in_host(net, pc, "net=bridged", "bridge=br9", "net_up")
    assert "master br9" in net.run("host", "ip", "link", "show", "br9-tap0")
    said = in_host(
        net, pc, "net=bridged", "bridge=br9", "address=172.20.0.9/16", "qemu_test", status=1
    )
    assert (
        "=== network ok: eth0 has 172.20.0.9/16, no gateway" in said
    )  # there is nobody to ping or to ask there
    assert "=== fetch ok" in said
    in_host(net, pc, "net_down")
    net.unchanged(before)


def test_iptables_where_nft_is_missing(net: Topology) -> None:
    if _missing("iptables"):
        pytest.skip("iptables is not installed")
    before = net.settled()
    code = STEPS.replace(
        "state.observe()",
        "__import__('msgspec').structs.replace(state.observe(), tools=('iptables', 'dnsmasq'))",
    )
    python = ("env", f"PYTHONPATH={TOP}", sys.executable, "-B")
    net.run("host", *python, "-c", code, "nat", "none", "0")
    rules = net.run("host", "iptables-save")
    assert "-A POSTROUTING -s 192.168.135.0/24 ! -d 192.168.135.0/24 ! -o piggy0" in rules
    order = [line for line in rules.splitlines() if line.startswith("-A FORWARD")]
    assert [line.split()[-1] for line in order] == ["ACCEPT", "ACCEPT", "DROP"]
    net.run("host", *python, "-m", "tasks.network.apply", "down")
    net.unchanged({**before, "nft": net.snapshot()["nft"]})  # iptables-nft leaves its tables, empty
    assert "piggyback" not in net.run("host", "iptables-save")


def test_a_kernel_without_the_cards_driver_is_told_before_it_boots(pc: Checkout) -> None:
    config = pc.images / "config"
    before = config.read_text()
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from pathlib import Path; from tasks import qemu; from tasks.config import project\n"
        "from tasks.guest import boot; from tasks.kconfig import dotconfig\n"
        "it = project.load(Path.cwd(), {}, {})\n"
        "boot.check_network(it, qemu.gathered(it), dotconfig.read_config(it.layout.config))"
    )
    try:
        config.write_text(before.replace("CONFIG_NE2K_PCI=y", "# CONFIG_NE2K_PCI is not set"))
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=pc.top,
            env=clean_env(),
            text=True,
            capture_output=True,
            check=False,
        )
    finally:
        config.write_text(before)
    assert (
        "the guest would have no network: the network card ne2k_pci needs CONFIG_NE2K_PCI in the"
        " kernel" in done.stderr
    )


def test_the_status_page_in_a_browser(pc: Checkout, tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    with shell(pc, []) as guest:
        text = (pc.top / "boot.log").read_text()
        url = re.findall(r"http://127\.0\.0\.1:\d+/", text)[-1]
        release = ask(guest, "uname -r").split()[0]
        size = "--window-size=900,1000"
        page = browser.run(size, "--dump-dom", url)
        picture = tmp_path / "page.png"
        browser.run(size, f"--screenshot={picture}", url)
        for text in (release, "eth0", "10.0.2.15/24", "Memory", "Interfaces", "console=ttyS0"):
            assert text in page
        assert picture.read_bytes().startswith(b"\x89PNG")
        image = pytest.importorskip("PIL.Image")
        with image.open(picture) as opened:
            assert opened.size == (900, 1000)
            assert len(opened.convert("RGB").getcolors(1 << 20)) > 50  # text, not a blank page
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with pytest.raises(urllib.error.HTTPError):
            opener.open(url + "etc/passwd")
