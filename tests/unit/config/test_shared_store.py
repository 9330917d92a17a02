from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tasks.config import shared_store
from tasks.config.resolve import SECRETS, resolve
from tasks.config.settings import Settings
from tasks.system.errors import PiggyError

URL = "https://cache.example.org/piggy"


class Origins(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return f"from {name}"


def refused(**given: Any) -> PiggyError:
    with pytest.raises(PiggyError) as caught:
        shared_store.check(Settings(**given), Origins())
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "file").touch()
    return str(tmp_path / "file")


def test_what_can_be_used(file: str) -> None:
    for given in (
        {},
        {"store_remote": URL},
        {"store_remote": URL, "store_signers": file},
        {"store_remote": "http://[::1]:8080", "store_push": True, "store_key": file},
        {"store_signers": file, "store_key": file},
    ):
        shared_store.check(Settings(**given), Origins())


def test_what_cant(file: str) -> None:
    assert "from store_signers: store_signers=/none is no file" in str(
        refused(store_signers="/none")
    )
    assert "store_key=/ is no file" in str(refused(store_key="/"))
    assert "needs store_key=" in str(refused(store_push=True, store_remote=URL))
    assert "needs store_remote=" in str(refused(store_push=True, store_key=file))
    assert "is no http or https address" in str(refused(store_remote="ftp://x/y"))
    assert "is no http or https address" in str(refused(store_remote="cache.example.org"))


@pytest.mark.parametrize(
    "url", ["https://ci:s3cr3t@cache.example.org/", "https://cache.example.org/?key=s3cr3t"]
)
def test_a_password_in_the_address_is_refused_and_not_shown(url: str) -> None:
    said = str(refused(store_remote=url))
    assert "holds a password or a query" in said
    assert "s3cr3t" not in said
    assert all(name in said for name in SECRETS)


def test_a_login_is_no_setting(tmp_path: Path) -> None:
    (tmp_path / "configs" / "machines").mkdir(parents=True)
    (tmp_path / "configs" / "machines" / "pc.toml").touch()
    found = resolve(tmp_path, dict.fromkeys(SECRETS, "s3cr3t"), {})
    assert "s3cr3t" not in str(found)
    with pytest.raises(PiggyError, match="unknown setting 'PIGGYBACK_STORE_PASSWORT'"):
        resolve(tmp_path, {"PIGGYBACK_STORE_PASSWORT": "x"}, {})


def opened(monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str], **given: Any) -> Any:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return shared_store.opened(msgspec.structs.replace(Settings(), **given))


def test_what_the_settings_open(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(monkeypatch, {}) is None
    assert opened(monkeypatch, {}, store_remote=URL, offline=True) is None
    remote = opened(monkeypatch, {}, store_remote=f"{URL}/", store_key=file)
    assert (remote.server.url, remote.signers, remote._sender) == (URL, None, None)
    assert remote.server.login == ("", "", "")
    assert remote.checks.one_in == 50
    env = {"PIGGYBACK_STORE_USER": "a", "PIGGYBACK_STORE_PASSWORD": "b"}
    remote = opened(
        monkeypatch,
        env,
        store_remote=URL,
        store_signers=file,
        store_key=file,
        store_push=True,
        store_check=3,
    )
    assert str(remote.signers.path) == str(remote._sender.key) == file
    assert remote.server.login == ("a", "b", "")
    assert remote.checks.one_in == 3
    assert opened(monkeypatch, {"PIGGYBACK_STORE_TOKEN": "t"}, store_remote=URL).server.login == (
        "",
        "",
        "t",
    )


def test_a_project_without_one_loads_nothing_of_it() -> None:
    """It would cost each start some milliseconds."""
    code = "import sys, tasks.config.project; print('tasks.cache.remote' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
