"""A bare Debian of any release in a folder, made by debootstrap, in which commands run as on a
machine just installed.

The package archive, apt's settings and pip's are those of this machine. What is mounted is so in a
mount namespace of the command's own, so that nothing is left mounted and the folder can be removed
at any time; its processes end with it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tasks.config import pins

NEEDS = ("debootstrap", "unshare", "chroot", "apt-get")
HOME = "/srv/piggyback"
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_CA = "/etc/host-certificates.pem"
_ENTER = """\
mount -t proc proc "$1/proc"
mount -t sysfs -o ro sysfs "$1/sys"
mkdir -p "$1/dev/shm" "$1/dev/pts"
mount -t tmpfs shm "$1/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$1/dev/pts"
ln -sf pts/ptmx "$1/dev/ptmx"
root=$1; shift
exec chroot "$root" "$@"
"""


def why_not() -> str:
    """Say why no chroot can be made here, "" where it can."""
    if os.geteuid():
        return "debootstrap needs root"
    missing = [name for name in NEEDS if not shutil.which(name)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return "" if archives() else "this machine's package sources name no archive of its own release"


def archives() -> dict[str, str]:
    """Return the addresses of the archives that this machine has its own release, its updates and
    security fixes from: "" -> address, "-security" -> address, ..."""
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    own = pins.codename()
    found = dict(line.split(" ", 1) for line in asked.splitlines())
    return {
        kind: found[own + kind]
        for kind in ("", "-updates", "-security")
        if own and own + kind in found
    }


class Chroot:
    """A bare Debian `release` in the folder `root`."""

    def __init__(self, root: Path, release: str) -> None:
        self.root, self.release = root, release
        keys = ["--keyring", str(_KEYS)] if _KEYS.exists() else []
        with (root.parent / "debootstrap.log").open("w") as log:
            subprocess.run(
                ["debootstrap", "--variant=minbase", *keys, release, root, archives()[""]],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=1800,
            )
        self.write(
            "/etc/apt/sources.list",
            "".join(
                f"deb {address} {release}{kind} main\n" for kind, address in archives().items()
            ),
        )
        settings = subprocess.run(
            ["apt-config", "dump"], check=True, capture_output=True, text=True
        ).stdout
        self.write(
            "/etc/apt/apt.conf.d/99host",
            "".join(
                f"{line}\n"
                for line in settings.splitlines()
                if re.match(r"Acquire::(https?|ftp|Check-\w|Force)", line)
            ),
        )
        for name in ("resolv.conf", "hosts"):
            self.write(f"/etc/{name}", Path("/etc", name).read_text())
        self.env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "USER": "root",
            "HOME": str(Path("~root").expanduser()),
            "LANG": "C.UTF-8",
            **self._network(),
        }

    def _network(self) -> dict[str, str]:
        """How this machine reaches the package registries: its proxies, certificates, and pip's
        settings, but for those that name a place on its own disk."""
        found = {
            name: os.environ[name]
            for name in os.environ
            if name.lower() in ("http_proxy", "https_proxy", "no_proxy")
        }
        said = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"],
            check=True,
            capture_output=True,
            text=True,
        )
        for name, value in re.findall(r"^\S+?\.([\w-]+)='(.*)'$", said.stdout, re.MULTILINE):
            if name == "cert":
                self.write(_CA, Path(value).read_text())
                found["PIP_CERT"] = _CA
            elif "file:" not in value and not re.search(r"(^|\s)/", value):
                found[f"PIP_{name.upper().replace('-', '_')}"] = value
        return found

    def write(self, path: str, text: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.write_text(text)

    def copy_checkout(self, top: Path) -> None:
        """Lay a copy of what git knows, or would take, of the checkout `top` to HOME."""
        names = subprocess.run(
            ["git", "-C", top, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split("\0")
        for name in filter(None, names):
            target = self.root / HOME.lstrip("/") / name
            if (top / name).is_symlink() or (top / name).is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(top / name, target, follow_symlinks=False)

    def run(self, script: str, log: Path, timeout: float = 3600) -> tuple[int, str]:
        """Run a line of bash in HOME, with no terminal; return its exit status and output. `log`:
        for the latter."""
        # bash is the first process of its namespace: it stays, and so buries whoever's parent died
        inside = ["bash", "-c", f"cd {HOME}\n{script}\nexit $?"]
        with log.open("w") as stream:
            stream.write(f"$ {script}\n")
            stream.flush()
            done = subprocess.run(
                [
                    "unshare",
                    "--mount",
                    "--pid",
                    "--fork",
                    "--kill-child",
                    "--propagation",
                    "private",
                    "sh",
                    "-ec",
                    _ENTER,
                    "sh",
                    self.root,
                    *inside,
                ],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        return done.returncode, log.read_text(errors="replace")

    def version(self, command: str) -> str:
        """The first line that a program in the chroot says of itself."""
        words = ["chroot", self.root, *shlex.split(command)]
        done = subprocess.run(
            words,
            env=self.env,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return next(iter(done.stdout.splitlines()), "")
