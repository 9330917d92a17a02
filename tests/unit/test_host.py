from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks import host
from tasks.config import packages
from tasks.config.packages import Need
from tasks.guest import kvm
from tasks.system.errors import PiggyError

TOP = Path(__file__).parents[2]
TABLE = """\
[managers]
apt.program = "apt-get"
apt.tried = ["debian 12", "debian 13"]
apt.update = ["update"]
apt.install = ["install", "-y"]
dnf = { program = "dnf", install = ["install", "-y"] }
[tools]
make = { why = "everything" }
"libc headers".why = "C"
"libc headers".file = ["HERE/usr/include/stdio.h"]
"libc headers".apt = "libc6-dev"
"libc headers".dnf = "glibc-devel"
"{triple}-gcc" = { why = "the cross compiler", apt = "gcc-{triple}", dnf = "gcc-{triple}" }
"""
# An apt-get that logs its arguments, and "installs": the missing programs and files appear.
APT = """\
#!/bin/sh
printf 'Get:0 0%%\\rGet:1 something\\r\\n'; echo "E: a \\033[31mfault" >&2; cat
echo "$(basename $0) $* [$DEBIAN_FRONTEND]" >> HERE/calls
[ "$1" = install ] || exit ${APT_STATUS:-0}
[ -e HERE/broken ] && exit 100
[ -e HERE/useless ] && exit 0
for name in make x86_64-linux-gnu-gcc; do
printf '#!/bin/sh\\necho "$0 4.3"\\n' > HERE/bin/$name; chmod +x HERE/bin/$name
done
mkdir -p HERE/usr/include; : > HERE/usr/include/stdio.h
"""


class Host:
    """A host whose PATH holds only what a test puts there, and what sh itself needs."""

    def __init__(self, top: Path) -> None:
        self.top, self.bin = top, top / "bin"
        self.bin.mkdir()
        (top / "configs").mkdir()
        (top / "configs" / "packages.toml").write_text(TABLE.replace("HERE", str(top)))
        for name in ("basename", "cat", "chmod", "mkdir", "sh"):
            (self.bin / name).symlink_to(
                f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}"
            )

    def program(self, name: str, text: str = '#!/bin/sh\necho "$0 1.0"\n') -> None:
        (self.bin / name).write_text(text.replace("HERE", str(self.top)))
        (self.bin / name).chmod(0o755)

    def job(self) -> Any:
        machine = SimpleNamespace(triple="x86_64-linux-gnu", qemu=None, arch="x86_64")
        settings = SimpleNamespace(net="user", toolchain="distro", llvm="1")
        return SimpleNamespace(
            project=SimpleNamespace(
                top=self.top,
                machine=machine,
                layout=SimpleNamespace(build=self.top / "build" / "deep", dl=self.top / "dl"),
                settings=settings,
            ),
            log=self.top / "logs" / "setup.log",
        )

    def calls(self) -> list[str]:
        path = self.top / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setenv("PATH", str(made.bin))
    env = {"PATH": str(made.bin)}
    monkeypatch.setattr(packages, "clean_env", lambda: env)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    release(monkeypatch, ID="debian", VERSION_ID="12", PRETTY_NAME="Debian GNU/Linux 12 (bookworm)")
    return made


def release(monkeypatch: pytest.MonkeyPatch, **said: str) -> None:
    """Replace the content of the system's /etc/os-release."""
    monkeypatch.setattr(packages.platform, "freedesktop_os_release", lambda: said)


def test_setup_installs_what_is_missing_and_then_nothing_more(
    bare: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    bare.program("apt-get", APT)
    host.setup(bare.job())
    said, errors = capfd.readouterr()
    assert errors == ""
    lines = said.splitlines()
    assert lines[:-1] == [
        "  setup              missing: make, libc headers, x86_64-linux-gnu-gcc",
        "  $ apt-get update",
        "  $ apt-get install -y make libc6-dev gcc-x86-64-linux-gnu",
    ]
    assert re.fullmatch(
        rf"  setup              installed \(.* s\); its output: {bare.top}/logs/setup.log",
        lines[-1],
    )
    output = "Get:0 0%\nGet:1 something\nE: a \033[31mfault\n"
    log = f"DEBIAN_FRONTEND=noninteractive apt-get {{}}\n{output}"
    assert (bare.top / "logs/setup.log").read_text() == "".join(
        f"$ {log.format(words)}"
        for words in ("update", "install -y make libc6-dev gcc-x86-64-linux-gnu")
    )
    assert bare.calls() == [
        "apt-get update [noninteractive]",
        "apt-get install -y make libc6-dev gcc-x86-64-linux-gnu [noninteractive]",
    ]
    host.setup(bare.job())
    assert capfd.readouterr().out == "  setup              nothing is missing\n"
    assert len(bare.calls()) == 2


def test_only_what_is_missing_is_installed(bare: Host) -> None:
    bare.program("apt-get", APT)
    bare.program("make")
    (bare.top / "usr" / "include").mkdir(parents=True)
    (bare.top / "usr" / "include" / "stdio.h").touch()
    host.setup(bare.job())
    assert bare.calls()[-1] == "apt-get install -y gcc-x86-64-linux-gnu [noninteractive]"


def test_sudo_goes_in_front_when_not_root(bare: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    bare.program("apt-get", APT)
    with pytest.raises(PiggyError) as caught:
        host.setup(bare.job())
    assert caught.value.message == "packages are missing, you are not root, and there is no sudo"
    assert (
        caught.value.hint
        == "as root: apt-get update && apt-get install -y make libc6-dev gcc-x86-64-linux-gnu"
    )
    assert bare.calls() == []
    bare.program("sudo", '#!/bin/sh\necho "sudo $*" >> HERE/calls\nexec "$@"\n')
    host.setup(bare.job())
    assert [line for line in bare.calls() if line.startswith("sudo")] == [
        "sudo apt-get update",
        "sudo apt-get install -y make libc6-dev gcc-x86-64-linux-gnu",
    ]


def test_another_manager(bare: Host) -> None:
    bare.program("dnf", APT)
    host.setup(bare.job())
    assert bare.calls() == ["dnf install -y make glibc-devel gcc-x86_64-linux-gnu [noninteractive]"]


@pytest.mark.parametrize(
    ("manager", "said", "told"),
    [
        ("apt-get", {"ID": "debian", "VERSION_ID": "13"}, ""),
        (
            "apt-get",
            {"ID": "ubuntu", "VERSION_ID": "24.04", "PRETTY_NAME": "Ubuntu 24.04\033"},
            (
                "on Ubuntu 24.04\\x1b these package names were never tried (they were on debian 12"
                " and debian 13)"
            ),
        ),
        (
            "apt-get",
            {"ID": "debian", "PRETTY_NAME": "Debian GNU/Linux forky/sid"},
            (
                "on Debian GNU/Linux forky/sid these package names were never tried (they were on"
                " debian 12 and debian 13)"
            ),
        ),
        (
            "dnf",
            {"ID": "fedora", "VERSION_ID": "42", "PRETTY_NAME": "Fedora Linux 42"},
            "on Fedora Linux 42 these package names were never tried",
        ),
        ("dnf", {}, "on this system these package names were never tried"),
    ],
)
def test_names_that_were_never_tried_are_said_to_be_so(
    bare: Host,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    manager: str,
    said: dict[str, str],
    told: str,
) -> None:
    release(monkeypatch, **said)
    bare.program(manager, APT)
    host.setup(bare.job())
    lines = capfd.readouterr().out.splitlines()
    assert ("never tried" in lines[1]) == bool(told)
    assert not told or lines[1].strip() == told


def test_no_manager_at_all(bare: Host) -> None:
    with pytest.raises(
        PiggyError, match="missing on this host: make, libc headers, .* none of apt, dnf"
    ):
        host.setup(bare.job())


def test_a_manager_that_fails(bare: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    bare.program("apt-get", APT)
    (bare.top / "broken").touch()
    with pytest.raises(PiggyError, match="'apt-get install .*' ended with status 100") as caught:
        host.setup(bare.job())
    assert caught.value.hint.splitlines()[1:] == [
        "    Get:1 something",
        "    E: a \\x1b[31mfault",
        f"log: {bare.top}/logs/setup.log",
    ]


def test_a_manager_that_says_yes_and_does_nothing(bare: Host) -> None:
    bare.program("apt-get", APT)
    (bare.top / "useless").touch()
    with pytest.raises(
        PiggyError, match="still missing after the installation: make, libc headers"
    ) as caught:
        host.setup(bare.job())
    assert "configs/packages.toml" in caught.value.hint


def test_doctor_reports_everything_before_it_complains(
    bare: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    bare.program("apt-get")
    bare.program("make", '#!/bin/sh\n[ "$1" = --version ] && echo "GNU Make 4.3"\n')
    with pytest.raises(
        PiggyError,
        match=r"missing on this host: libc headers, x86_64-linux-gnu-gcc\n  hint: 'doit setup'",
    ):
        host.doctor(bare.job())
    lines = [line.split(maxsplit=1) for line in capfd.readouterr().out.splitlines()]
    assert lines[0] == ["make", "GNU Make 4.3"]
    assert lines[1] == ["libc", "headers       MISSING: package libc6-dev (C)"]
    assert "MISSING: package gcc-x86-64-linux-gnu (the cross compiler)" in lines[2][1]
    assert [line[1].split()[:2] for line in lines[3:]] == [["for", "build/"], ["for", "dl/"]]
    assert not (bare.top / "build").exists()


def test_doctor_says_when_room_is_short(
    bare: Host, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare.program("apt-get", APT)
    host.setup(bare.job())
    monkeypatch.setattr(host.shutil, "disk_usage", lambda path: SimpleNamespace(free=3 << 30))
    host.doctor(bare.job())
    assert capfd.readouterr().out.count("3.0 GB free  TOO LITTLE: a first build needs 4 GB") == 2


def test_doctor_asks_kvm(
    bare: Host, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare.program("apt-get", APT)
    host.setup(bare.job())
    bare.program("qemu-system-x86_64")
    monkeypatch.setattr(
        kvm, "choose", lambda *args: SimpleNamespace(accel="tcg", reason="the trial hung")
    )
    job = bare.job()
    job.project.machine.qemu = SimpleNamespace(binary="qemu-system-x86_64")
    host.doctor(job)
    assert "  KVM                not used: the trial hung\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('echo "tool 1.2"', "tool 1.2"),
        ('echo "no number"; echo "  tool 1.2  "; echo "3"', "tool 1.2"),
        ('[ "$1" = -V ] && echo "mke2fs 1.47" >&2 || exit 1', "mke2fs 1.47"),
        ("exit 3", "PATH"),
        ("echo nothing", "PATH"),
        ('echo "usage error 22"; exit 1', "PATH"),
    ],
)
def test_versions(tmp_path: Path, script: str, said: str) -> None:
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    assert host.version(Need("tool", "", str(tool), {}, True)) == said.replace("PATH", str(tool))
    assert host.version(Need("x headers", "", "/usr/include/x.h", {}, False)) == "/usr/include/x.h"
