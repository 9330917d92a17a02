"""One machine makes, others take what it made: real doit on the fake sources, over real servers."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import cacheservers
import faultyproxy
import playground
import pytest
from cacheservers import SERVERS, Keys
from faultyserver import closed_port
from playground import Kept, Playground
from test_objects import INCBIN, PANIC, compiled, elsewhere
from test_shortway import as_make_does
from test_store import STORED, poison

STORE = "build/store"


class Shared:
    """A project, a server, and keys.

    writes, reads: settings, as environment, of who sends and of who takes.
    """

    def __init__(self, play: Playground, url: str, keys: Keys) -> None:
        self.play, self.url, self.keys = play, url, keys
        self.remote = {"PIGGYBACK_STORE_REMOTE": url, "PIGGYBACK_STORE_CHECK": "0"}
        self.reads = {**self.remote, "PIGGYBACK_STORE_SIGNERS": str(keys.signers)}
        self.writes = {
            **self.remote,
            "PIGGYBACK_STORE_PUSH": "yes",
            "PIGGYBACK_STORE_KEY": str(keys.key),
        }

    def forget(self) -> None:
        """Be another machine: nothing is there but sources and toolchain."""
        shutil.rmtree(self.play.here)
        shutil.rmtree(self.play.top / STORE, ignore_errors=True)


@pytest.fixture(scope="module")
def ci(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return cacheservers.keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def play(kept: Kept) -> Iterator[Playground]:
    """The project, built without a store; then with one."""
    playground.copy(kept.whole, kept.play.top)
    kept.play.store_size, kept.play.limit = "1G", 300
    yield kept.play
    kept.play.store_size, kept.play.limit = "0", 60
    kept.play.close()


@contextlib.contextmanager
def filled(play: Playground, kept: Kept, ci: Keys, server: str, run: Path) -> Iterator[Shared]:
    """A server that has what one machine made; the project is another machine's."""
    with SERVERS[server](run) as running:
        shared = Shared(play, running.url, ci)
        shared.forget()
        made = play.doit(**shared.writes)
        assert made.restored == []
        assert "not used" not in made.text
        shared.forget()
        yield shared


@pytest.mark.parametrize("server", SERVERS)
def test_what_one_machine_made_others_have(
    play: Playground, kept: Kept, ci: Keys, server: str, tmp_path: Path
) -> None:
    with filled(play, kept, ci, server, tmp_path) as shared:
        result = play.doit(**shared.reads)
        print(result.text, result.seconds)
        assert sorted(result.restored) == sorted(STORED), result.text
        assert play.digests() == kept.digests
        # from now on the local store has it
        shutil.rmtree(play.here)
        assert sorted(play.doit(PIGGYBACK_OFFLINE="yes", **shared.reads).restored) == sorted(STORED)


def test_a_login(play: Playground, ci: Keys, kept: Kept, tmp_path: Path) -> None:
    login = {"PIGGYBACK_STORE_USER": "ci", "PIGGYBACK_STORE_PASSWORD": "secret"}
    with cacheservers.wsgidav(tmp_path, login=True) as server:
        shared = Shared(play, server.url, ci)
        shared.forget()
        said = play.doit(**shared.writes).text
        assert said.count(f"{server.url} is not used any more in this run: it wants another") == 1
        assert server.files("cas") == []
        shared.forget()
        play.doit(**shared.writes, **login)
        shared.forget()
        assert sorted(play.doit(**shared.reads, **login).restored) == sorted(STORED)
        assert play.digests() == kept.digests
        assert "secret" not in play.doit("settings", **shared.reads, **login).text


@pytest.mark.long
def test_what_was_made_before_is_sent_on_demand(
    play: Playground, kept: Kept, ci: Keys, tmp_path: Path
) -> None:
    with cacheservers.nginx(tmp_path) as server:
        shared = Shared(play, server.url, ci)
        shared.forget()
        play.doit()
        assert "'store push' needs store_push=yes" in play.fails("store", "push", **shared.reads)
        said = play.doit("store", "push", **shared.writes).text
        assert f"{server.url}: takes nothing, sends what is made here; answers in" in said
        shared.forget()
        plan = play.doit("plan", **shared.reads).text
        assert "vmlinux" in plan
        assert sorted(play.doit(**shared.reads).restored) == sorted(STORED)
        assert play.digests() == kept.digests


@pytest.fixture
def poisoned(play: Playground, ci: Keys, tmp_path: Path) -> Iterator[Shared]:
    """A server with what a machine made and signed whose vmlinux is another one."""
    with cacheservers.nginx(tmp_path) as server:
        shared = Shared(play, server.url, ci)
        shared.forget()
        play.doit()
        poison(play, "vmlinux", "vmlinux")
        play.doit("store", "push", **shared.writes)
        shared.forget()
        yield shared


@pytest.mark.long
def test_what_is_not_made_here_of_the_same(play: Playground, kept: Kept, poisoned: Shared) -> None:
    """The first link that differs is named, and what was made here counts."""
    poisoned.reads["PIGGYBACK_STORE_CHECK"] = "1"
    result = play.doit(status=None, **poisoned.reads)
    assert result.status == 4, result.text
    assert result.restored == []
    assert result.text.count("the shared store's vmlinux is not what is made here") == 1
    assert result.text.count("the shared store's") == 1
    assert "signed by ci@example.org" in result.text
    assert "kernel_config was made again, to check the shared store: as ci@" in result.text
    assert play.digests() == kept.digests
    shutil.rmtree(play.images)
    assert sorted(play.doit(**poisoned.reads).restored) == sorted(STORED)
    assert play.digests() == kept.digests


def test_a_vmlinux_that_make_would_not_make(play: Playground, kept: Kept, poisoned: Shared) -> None:
    """It is found out when a link is to be made of it, and is not taken again."""
    assert "not what make makes from the same files" in play.fails(**poisoned.reads)
    assert "vmlinux" in play.doit(**poisoned.reads).ran
    assert play.digests() == kept.digests


@pytest.mark.parametrize("fault", ["nobody", "hang", pytest.param("500", marks=pytest.mark.long)])
def test_a_dead_server_costs_two_seconds(
    play: Playground, kept: Kept, ci: Keys, fault: str, tmp_path: Path
) -> None:
    shared = Shared(play, f"http://127.0.0.1:{closed_port()}/piggy", ci)
    shared.forget()
    plain = play.doit().seconds
    shared.forget()
    with contextlib.ExitStack() as stack:
        if fault != "nobody":
            server = stack.enter_context(cacheservers.nginx(tmp_path))
            proxy = stack.enter_context(faultyproxy.before(server.url, lambda *words: fault))
            shared = Shared(play, proxy.url, ci)
        result = play.doit(**{**shared.reads, **shared.writes})
    assert result.text.count("is not used any more in this run") == 1
    assert play.digests() == kept.digests
    assert result.seconds < 2 * plain + 2 + 0.5  # others use the machine, too


def test_objects_come_in_one_go(play: Playground, ci: Keys, tmp_path: Path) -> None:
    """Another machine, in another folder, with an edit of its own: it compiles what that is in."""
    with cacheservers.nginx(tmp_path / "nginx") as server:
        shared = Shared(play, server.url, ci)
        shared.forget()
        play.doit("bzImage", **shared.writes)
        other = elsewhere(play, tmp_path)
        other.limit = play.limit
        shutil.rmtree(other.top / STORE)
        other.edit(other.linux / PANIC, "printk(why)", "printk(why + 1)")
        asked = len(server.requests())
        said = other.doit("bzImage", **shared.reads).text
        assert f"objects that ci@example.org made are taken from {server.url}" in said
        assert compiled(other) == sorted(["kernel/panic.o", INCBIN])
        assert len(server.requests()) - asked < 30
        assert as_make_does(other, tmp_path)
        # now it has its own
        asked = len(server.requests())
        shutil.rmtree(other.obj)
        shutil.rmtree(other.images)
        other.edit(other.linux / PANIC, "printk(why + 1)", "printk(why + 2)")
        assert "objects that" not in other.doit("bzImage", **shared.reads).text
        assert compiled(other) == sorted(["kernel/panic.o", INCBIN])


def test_objects_are_made_again_and_compared(play: Playground, ci: Keys, tmp_path: Path) -> None:
    with cacheservers.nginx(tmp_path / "nginx") as server:
        shared = Shared(play, server.url, ci)
        shared.forget()
        play.doit("bzImage", **shared.writes)
        other = elsewhere(play, tmp_path)
        other.limit = play.limit
        shutil.rmtree(other.top / STORE)
        shared.reads["PIGGYBACK_STORE_CHECK"] = "1"
        result = other.doit("bzImage", **shared.reads)
        assert "0 objects that ci@example.org made are taken from" in result.text
        assert "kernel/panic.o" in compiled(other)
        assert len(compiled(other)) > 5
        assert "the shared store's" not in result.text
