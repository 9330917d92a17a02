"""A real project: this checkout's dodo.py, tasks/, configs/ and overlays/ in a folder of the tests', and its dl/."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


@dataclass
class Checkout:
    """A copy of the project in which the tests may do as they like."""

    top: Path
    env: dict[str, str] = field(default_factory=dict)
    umask: int = 0o022

    @property
    def images(self) -> Path:
        return self.top / "build" / "pc" / "images"

    @property
    def kernel(self) -> Path:
        """The kernel tree."""
        return self.top / "build" / "src" / "linux-6.1"

    def argv(self, *words: str) -> list[str]:
        return [str(Path(sys.executable).with_name("doit")), *words]

    def variables(self) -> dict[str, str]:
        return {**os.environ, "PIGGYBACK_DL": str(TOP / "dl"), **self.env}

    def doit(self, *words: str, status: int = 0, timeout: float = 1500) -> str:
        """Run doit and return what it said; its exit status must be `status`."""
        done = subprocess.run(self.argv(*words), cwd=self.top, env=self.variables(), text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              umask=self.umask, check=False)
        print(done.stdout)
        assert done.returncode == status, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    def ran(self, *words: str) -> list[str]:
        """Run doit and return the tasks that it executed, in order."""
        history = self.top / "build" / "pc" / "logs" / "history.jsonl"
        before = len(history.read_text().splitlines())
        self.doit(*words)
        return [json.loads(line)["task"] for line in history.read_text().splitlines()[before:]]


def lay_out(top: Path, **more: object) -> Checkout:
    """Copy the project to `top`; what the user may have chosen for themselves stays behind."""
    top.mkdir(parents=True)
    shutil.copy(TOP / "dodo.py", top)
    for folder in ("tasks", "configs", "overlays"):
        shutil.copytree(TOP / folder, top / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "local"))
    return Checkout(top, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def pc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """The PC, built from nothing."""
    checkout = lay_out(tmp_path_factory.mktemp("real") / "checkout")
    checkout.doit()
    yield checkout
    shutil.rmtree(checkout.top, ignore_errors=True)
