"""The shared store, over a stand-in for bazel-remote and a proxy that damages what it says."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cacheservers
import faultyproxy
import msgspec
import pytest
from cacheservers import Bazel, Keys
from faultyproxy import ANSWERS, EMPTY, REQUESTS
from faultyserver import closed_port

from tasks.cache import remote, remote_pack, remote_push, signing, store_tag
from tasks.cache.action_result import ActionResult, decode, encode
from tasks.cache.remote import Remote
from tasks.cache.remote_entries import Listed, Made, Signed, name_of, text_of
from tasks.cache.remote_http import Login
from tasks.cache.store import Store
from tasks.cache.store_files import Output, Place, Result, short_hash

KEY, OTHER = short_hash(b"key"), short_hash(b"other")
FOUND = {"src.c": "1" * 32, "CONFIG_SMP": "y", "\udce9.h": "2" * 32}
CONTENT = {"out": b"image" * 30_000, "map": b"symbols", "none": b""}
SOON = 2.0  # seconds that a dead server may cost


@pytest.fixture(scope="module")
def ci(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return cacheservers.keys(tmp_path_factory.mktemp("ci"), "ci@example.org")


@pytest.fixture(scope="module")
def mallory(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return cacheservers.keys(tmp_path_factory.mktemp("mallory"), "mallory@example.org")


@pytest.fixture
def site() -> Iterator[Bazel]:
    with cacheservers.bazel() as site:
        yield site


class Machine:
    """A machine with a store of its own. `signers`, `key`: what it believes and signs with."""

    def __init__(
        self,
        top: Path,
        url: str,
        signers: Keys | None = None,
        key: Keys | None = None,
        check: int = 0,
        login: Login = Login(),  # noqa: B008
    ) -> None:
        self.top = top
        top.mkdir()
        self.remote = Remote(
            url, login, signers.signers if signers else None, key.key if key else None, check
        )
        self.store = Store(top / "store", 1 << 30, self.remote)

    def result(self, content: dict[str, bytes] = CONTENT, task: str = "vmlinux") -> Result:
        outputs = []
        for name, data in content.items():
            (self.top / name).write_bytes(data)
            outputs.append(Output(short_hash(data), len(data), 0o755))
        return Result(task, 1e9, {"commands": 7}, outputs, {"obj/side.ko": "3" * 32})

    def put(
        self,
        key: str = KEY,
        found: dict[str, str] = FOUND,
        content: dict[str, bytes] = CONTENT,
        task: str = "vmlinux",
    ) -> Machine:
        targets = [self.top / name for name in content]
        self.store.put(key, found, self.result(content, task), targets)
        self.remote.finish()
        return self

    def find(self, key: str = KEY, now: dict[str, str] = FOUND) -> tuple[Result, list[str]] | None:
        return self.store.find(key, lambda names: {name: now.get(name, "") for name in names})

    def has(self, key: str = KEY, content: dict[str, bytes] = CONTENT) -> bool:
        """Whether it has the result, from wherever; never another one."""
        found = self.find(key)
        targets = [self.top / "images" / name for name in content]
        if not found or not self.store.bring_back(found[0], targets):
            assert not any(target.exists() for target in targets)
            return False
        result, names = found
        assert names == list(FOUND)
        assert [target.read_bytes() for target in targets] == list(content.values())
        assert [target.stat().st_mode & 0o777 for target in targets] == [0o755] * len(targets)
        assert (result.task, result.time, result.values) == ("vmlinux", 1e9, {"commands": 7})
        assert result.made == {"obj/side.ko": "3" * 32}
        return True


@pytest.fixture
def filled(site: Bazel, ci: Keys, tmp_path: Path) -> Bazel:
    """A server with what CI made."""
    Machine(tmp_path / "ci", site.url, key=ci).put()
    return site


def ac(*words: str) -> str:
    return f"/prefix/ac/{name_of(*words)}"


def entry(site: Bazel) -> str:
    """The path of the one result."""
    index = ac("names", KEY)
    (path,) = [one for one in site.files if "/ac/" in one and one != index]
    return path


def test_what_one_machine_made_another_has(filled: Bazel, ci: Keys, tmp_path: Path) -> None:
    assert {status for _, _, status in filled.asked} == {200, 404}
    here = Machine(tmp_path / "here", filled.url, signers=ci)
    assert here.has()
    asked = len(filled.asked)
    assert here.has()  # from the local store
    assert len(filled.asked) == asked
    assert {method for method, *_ in filled.asked[-4:]} == {"GET"}


def test_other_inputs_are_none(filled: Bazel, ci: Keys, tmp_path: Path) -> None:
    here = Machine(tmp_path / "here", filled.url, signers=ci)
    assert here.find(OTHER) is None
    assert here.find(now={**FOUND, "CONFIG_SMP": "n"}) is None
    assert here.has()


def test_nothing_is_taken_without_signers(
    filled: Bazel, ci: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = len(filled.asked)
    here = Machine(tmp_path / "here", filled.url)
    assert not here.has()
    assert not here.has()
    here.put()  # and nothing is sent
    assert len(filled.asked) == asked
    assert capsys.readouterr().out.count("nothing is taken from http://127.0.0.1") == 1


def test_who_only_sends_is_told_nothing(
    site: Bazel, ci: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Machine(tmp_path / "here", site.url, key=ci)
    assert not here.has()
    here.put()
    assert capsys.readouterr().out == ""
    assert site.files


def test_an_entry_by_somebody_else(
    site: Bazel, ci: Keys, mallory: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poison = {**CONTENT, "out": b"poison"}
    Machine(tmp_path / "mallory", site.url, key=mallory).put(content=poison)
    here = Machine(tmp_path / "here", site.url, signers=ci)
    assert not here.has()
    assert not here.has()
    assert capsys.readouterr().out.count("is not signed by a key of") == 1
    assert here.remote.off == ""
    # CI finds his entry, which nobody believes, and makes its own
    Machine(tmp_path / "ci", site.url, signers=ci, key=ci).put()
    assert here.has()


def forged(site: Bazel, change: Callable[[Any], Any], path: str = "") -> None:
    """Change what is in an entry, but not its signature."""
    path = path or entry(site)
    found = decode(site.files[path])
    signed = msgspec.msgpack.decode(found.stdout, type=Signed)
    made = msgspec.msgpack.decode(signed.statement, type=Made)
    data = msgspec.msgpack.encode(change(made))
    stdout = msgspec.msgpack.encode(Signed(data, signed.signature))
    site.files[path] = encode(ActionResult(found.files, stdout))


def poisoned(made: Made) -> Made:
    outputs = [Output(short_hash(b"poison"), 6, 0o755), *made.result.outputs[1:]]
    result = msgspec.structs.replace(made.result, outputs=outputs)
    sha256s = [hashlib.sha256(b"poison").hexdigest(), *made.sha256s[1:]]
    return msgspec.structs.replace(made, result=result, sha256s=sha256s)


CHANGES: dict[str, Callable[[Made], Any]] = {
    "content": poisoned,
    "mode": lambda made: msgspec.structs.replace(
        made,
        result=msgspec.structs.replace(
            made.result,
            outputs=[msgspec.structs.replace(one, mode=0o600) for one in made.result.outputs],
        ),
    ),
    "values": lambda made: msgspec.structs.replace(
        made, result=msgspec.structs.replace(made.result, values={"commands": 8})
    ),
    "format": lambda made: msgspec.structs.replace(made, format=2),
    "key": lambda made: msgspec.structs.replace(made, place=made.place._replace(key=OTHER)),
    "state": lambda made: msgspec.structs.replace(made, place=made.place._replace(state=OTHER)),
    "digests": lambda made: msgspec.structs.replace(made, sha256s=made.sha256s[::-1]),
    "another statement": lambda made: Listed(1, KEY, "0" * 64, 1),
    "no statement": lambda made: {"x": [1]},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_signature_covers_all(filled: Bazel, ci: Keys, change: str, tmp_path: Path) -> None:
    poison = f"/prefix/cas/{hashlib.sha256(b'poison').hexdigest()}"
    filled.files[poison] = b"poison"
    forged(filled, CHANGES[change])
    assert not Machine(tmp_path / "here", filled.url, signers=ci).has()


def test_what_is_signed_is_believed_only_in_its_place(
    filled: Bazel, ci: Keys, tmp_path: Path
) -> None:
    """The old entry of another key, or of other inputs, under the right name."""
    here = Machine(tmp_path / "here", filled.url, signers=ci)
    now = {**FOUND, "CONFIG_SMP": "n"}
    Machine(tmp_path / "ci2", filled.url, key=ci).put(found=now, content={"out": b"a", "map": b"b"})
    (other,) = {one for one in filled.files if "/ac/" in one} - {ac("names", KEY), entry_of(FOUND)}
    assert here.find(now=now) is not None
    filled.files[other] = filled.files[entry_of(FOUND)]
    assert here.find(now=now) is None
    # lists, too
    filled.files[ac("names", OTHER)] = filled.files[ac("names", KEY)]
    assert here.find(OTHER) is None
    filled.files[ac("names", KEY)] = filled.files[entry_of(FOUND)]
    assert here.find() is None


def entry_of(found: dict[str, str]) -> str:
    names = short_hash("\0".join(found).encode(errors="surrogateescape"))
    state = short_hash("\0".join(found.values()).encode(errors="surrogateescape"))
    return ac("result", KEY, names, state)


def test_right_digests_of_a_signer_that_contradict_each_other(
    site: Bazel, ci: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signer's entry whose SHA256 is not that of the output's digest."""

    def sign(self: remote_push.Sender, statement: Any) -> Signed:
        if isinstance(statement, Made):
            statement = msgspec.structs.replace(statement, sha256s=statement.sha256s[::-1])
        data = msgspec.msgpack.encode(statement)
        return Signed(data, signing.sign(self.key, text_of(data)))

    monkeypatch.setattr(remote_push.Sender, "_sign", sign)
    Machine(tmp_path / "ci", site.url, key=ci).put()
    assert not Machine(tmp_path / "here", site.url, signers=ci).has()


# Lists


def test_several_lists_and_writers(site: Bazel, ci: Keys, mallory: Keys, tmp_path: Path) -> None:
    both = cacheservers.keys(tmp_path / "both", "x@y")
    both.believe(ci, mallory)
    more = {**FOUND, "more.h": "4" * 32}
    Machine(tmp_path / "one", site.url, key=ci).put(found=more, content={"out": b"one"})
    Machine(tmp_path / "two", site.url, key=mallory).put()
    Machine(tmp_path / "three", site.url, key=ci).put(found={}, content={"out": b"three"})
    for found, size in ((more, 3), (FOUND, 150_000), ({}, 5)):
        here = Machine(tmp_path / f"here{size}", site.url, signers=both)
        now = {"src.c": "other", **found}
        if not found:  # which is always the same
            now = {}
        got = here.find(now=now)
        assert got
        assert got[0].outputs[0].size in (size, 5)
    signed = msgspec.msgpack.decode(decode(site.files[ac("names", KEY)]).stdout, type=list[Signed])
    assert len(signed) == 3


def test_the_newest_lists_are_kept_and_tried(
    site: Bazel, ci: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_push, "LISTS", 3)
    monkeypatch.setattr(remote, "TRIED", 2)
    writer = Machine(tmp_path / "ci", site.url, key=ci)
    lists = [{f"{number}.h": "1" * 32} for number in range(5)]
    for found in lists:
        writer.put(found=found)
    result = decode(site.files[ac("names", KEY)])
    assert len(result.files) == len(msgspec.msgpack.decode(result.stdout)) == 3
    here = Machine(tmp_path / "here", site.url, signers=ci)
    assert [bool(here.find(now=found)) for found in lists] == [False, False, False, True, True]


def test_what_is_there_is_not_sent_again(filled: Bazel, ci: Keys, tmp_path: Path) -> None:
    del filled.asked[:]
    Machine(tmp_path / "again", filled.url, signers=ci, key=ci).put()
    assert {method for method, *_ in filled.asked} == {"GET", "HEAD"}


def test_objects_stay_here(site: Bazel, ci: Keys, tmp_path: Path) -> None:
    Machine(tmp_path / "ci", site.url, key=ci).put(task="objects")
    assert site.asked == []


# Packs


def objects(machine: Machine, count: int = 30) -> list[Place]:
    """Results of the task "objects", each with a content of its own, and one without any."""
    places = []
    for number in range(count):
        content = {"x.o": f"object {number}".encode() * 50} if number else {}
        places.append(
            machine.store.put(
                short_hash(f"object {number}".encode()),
                FOUND,
                machine.result(content, "objects"),
                [machine.top / name for name in content],
            )
        )
    return places


def test_a_pack(site: Bazel, ci: Keys, tmp_path: Path) -> None:
    writer = Machine(tmp_path / "ci", site.url, key=ci)
    places = objects(writer)
    lost = Place("0" * 32, "0" * 32, "0" * 32)
    writer.store.push_pack(KEY, [*places, lost])
    writer.remote.finish()
    assert len(site.asked) == 3  # HEAD and PUT of the pack, PUT of the entry
    here = Machine(tmp_path / "here", site.url, signers=ci)
    here.store.fetch_pack(KEY)
    assert len(site.asked) == 5
    found = here.store.results()
    assert sorted(path.relative_to(here.store.folder).parts[1:] for _, path, _ in found) == sorted(
        map(tuple, places)
    )
    for _, _, result in found:
        targets = [tmp_path / "target" for _ in result.outputs]
        assert here.store.bring_back(result, targets)
    here.store.fetch_pack(OTHER)
    assert len(here.store.results()) == len(places)


def test_a_pack_by_somebody_else(site: Bazel, ci: Keys, mallory: Keys, tmp_path: Path) -> None:
    writer = Machine(tmp_path / "mallory", site.url, key=mallory)
    writer.store.push_pack(KEY, objects(writer))
    writer.remote.finish()
    here = Machine(tmp_path / "here", site.url, signers=ci)
    here.store.fetch_pack(KEY)
    assert here.store.results() == []
    # nor one of ours under another key
    writer = Machine(tmp_path / "ci", site.url, key=ci)
    writer.store.push_pack(KEY, objects(writer))
    writer.remote.finish()
    site.files[ac("pack", OTHER)] = site.files[ac("pack", KEY)]
    here.store.fetch_pack(OTHER)
    assert here.store.results() == []
    here.store.fetch_pack(KEY)
    assert here.store.results()


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("fault", ANSWERS)
def test_a_fault_while_a_pack_comes(
    site: Bazel, ci: Keys, fault: str, number: int, tmp_path: Path
) -> None:
    writer = Machine(tmp_path / "ci", site.url, key=ci)
    places = objects(writer)
    writer.put().store.push_pack(KEY, places)
    writer.remote.finish()
    with faultyproxy.before(site.url, only(number, fault)) as proxy:
        proxy.paths += [one for one in site.files if one != ac("pack", KEY)]
        here = Machine(tmp_path / "here", proxy.url, signers=ci)
        began = time.monotonic()
        here.store.fetch_pack(KEY)
        assert time.monotonic() - began < SOON + 1.5
        assert proxy.done[fault] == 1
    assert len(here.store.results()) in ((len(places),) if fault == "late" else (0, len(places)))
    assert len(here.store.results()) == 0 or fault in ("late", "longer")


def test_what_of_a_pack_is_made_again_is_compared(
    site: Bazel, ci: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = Machine(tmp_path / "ci", site.url, key=ci)
    places = objects(writer)
    writer.store.push_pack(KEY, places)
    writer.remote.finish()
    here = Machine(tmp_path / "here", site.url, signers=ci, check=1)
    here.store.fetch_pack(KEY)
    assert [result.outputs for _, _, result in here.store.results()] == [[]]
    assert objects(here) == places
    assert not here.store.finish()
    here = Machine(tmp_path / "third", site.url, signers=ci, check=1)
    here.store.fetch_pack(KEY)
    result = here.result({"x.o": b"another"}, "objects")
    here.store.put(places[7].key, {**FOUND, "src.c": "9" * 32}, result, [here.top / "x.o"])
    assert not here.store.finish()  # which is of other inputs
    here.store.put(places[7].key, FOUND, result, [here.top / "x.o"])
    assert here.store.finish()
    assert "x.o is " in capsys.readouterr().err


def test_a_pack_that_contradicts_itself(tmp_path: Path) -> None:
    writer = Machine(tmp_path / "ci", "http://127.0.0.1:1")
    places = objects(writer, 3)
    good = remote_pack.unpack(remote_pack.pack(writer.store, places))
    assert [one.place for one in good] == places
    one = good[1]
    for bad in (
        msgspec.structs.replace(one, place=one.place._replace(state="../../../etc/passwd")),
        msgspec.structs.replace(one, place=one.place._replace(names="0" * 32)),
        msgspec.structs.replace(one, contents=[b"x"]),
        msgspec.structs.replace(one, contents=[]),
        msgspec.structs.replace(one, contents=[*one.contents, b""]),
        "x",
    ):
        data = zlib.compress(msgspec.msgpack.encode([good[0], bad]))
        with pytest.raises(ValueError):
            remote_pack.unpack(data)
    for data in (
        b"",
        b"x",
        zlib.compress(b"\x91" * 3000),
        remote_pack.pack(writer.store, places)[:-9],
    ):
        with pytest.raises(ValueError):
            remote_pack.unpack(data)


def test_a_pack_that_grows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote_pack, "MOST", 10_000)
    with pytest.raises(ValueError, match="too long"):
        remote_pack.unpack(zlib.compress(bytes(1 << 24)))
    writer = Machine(tmp_path / "ci", "http://127.0.0.1:1")
    packed = remote_pack.pack(writer.store, objects(writer))
    assert 3 < len(remote_pack.unpack(packed)) < 10


# Faults


def only(number: int, fault: str) -> Callable[[str, str, bool], str]:
    """A fault of the exchange of that number that can have it, from 0; all before it go well."""
    seen = []

    def choose(method: str, path: str, body: bool) -> str:
        possible = REQUESTS if method == "PUT" else ANSWERS if body else EMPTY
        if fault not in possible:
            return ""
        seen.append(path)
        return fault if len(seen) == number + 1 else ""

    return choose


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("fault", ANSWERS)
def test_a_fault_while_reading(
    filled: Bazel, ci: Keys, fault: str, number: int, tmp_path: Path
) -> None:
    """In any exchange: the index, the list, the entry, one of two contents."""
    with faultyproxy.before(filled.url, only(number, fault)) as proxy:
        proxy.paths += [f"/prefix/cas/{hashlib.sha256(CONTENT['map']).hexdigest()}"]
        proxy.paths += [entry(filled)]
        here = Machine(tmp_path / "here", proxy.url, signers=ci)
        began = time.monotonic()
        got = here.has()
        took = time.monotonic() - began
        assert proxy.done[fault] == 1 or fault in ("swap", "other kind")
        # what is appended to an ActionResult may count as fields that are not known
        assert got == (fault == "late" or not proxy.done[fault]) or fault == "longer"
        assert took < SOON + 1.5  # of the machine's own
        if here.remote.off:
            seen = len(proxy.seen)
            assert not here.has()
            assert len(proxy.seen) == seen
        else:
            assert here.has()


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("fault", REQUESTS)
def test_a_fault_while_sending(
    site: Bazel, ci: Keys, fault: str, number: int, tmp_path: Path
) -> None:
    with faultyproxy.before(site.url, only(number, fault)) as proxy:
        writer = Machine(tmp_path / "ci", proxy.url, key=ci)
        began = time.monotonic()
        writer.put()
        assert time.monotonic() - began < SOON + 1.5
        assert proxy.done[fault] == 1
        assert writer.has()  # in its own store
    here = Machine(tmp_path / "here", site.url, signers=ci)
    here.has()  # which asserts that it is the right one
    # nobody is worse off later
    here = Machine(tmp_path / "later", site.url, signers=ci, key=ci)
    here.has()
    here.put()
    assert Machine(tmp_path / "last", site.url, signers=ci).has()


def test_a_closed_port(ci: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = Machine(tmp_path / "here", f"http://127.0.0.1:{closed_port()}", signers=ci, key=ci)
    assert not here.has()
    here.put()
    assert here.has()
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "is not used any more in this run: it refuses the connection" in said


def test_a_host_without_an_address(
    ci: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Machine(tmp_path / "here", "http://cache.invalid/x", signers=ci)
    began = time.monotonic()
    assert not here.has()
    assert time.monotonic() - began < SOON + 1.5
    assert "is not used any more in this run: it " in capsys.readouterr().out


def test_a_name_server_that_is_silent(
    filled: Bazel, ci: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but a thread of its own keeps that from taking its time."""
    awake = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *words, **more: awake.wait(20))
    here = Machine(tmp_path / "here", filled.url, signers=ci)
    began = time.monotonic()
    assert not here.has()
    assert time.monotonic() - began < SOON
    awake.set()


def test_a_slow_server(
    filled: Bazel, ci: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each answer is in time, but they take longer than they may gain."""
    with faultyproxy.before(filled.url, lambda *words: "late") as proxy:
        here = Machine(tmp_path / "here", proxy.url, signers=ci)
        waited = []
        for number in range(100):
            began = time.monotonic()
            here.find(short_hash(f"{number}".encode()))
            waited.append(time.monotonic() - began)
    assert "is slow" in here.remote.off
    assert 6 < len(proxy.seen) < 60
    assert max(waited[60:]) < 0.1


@pytest.mark.parametrize("fault", ["zeros", "short", "swap"])
def test_three_damaged_answers_are_enough(
    filled: Bazel, ci: Keys, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def choose(method: str, path: str, body: bool) -> str:
        return fault if body and "/ac/" in path else ""

    with faultyproxy.before(filled.url, choose) as proxy:
        proxy.paths += [entry(filled)]
        here = Machine(tmp_path / "here", proxy.url, signers=ci)
        for _ in range(6):
            assert not here.has()
    assert len(proxy.seen) == remote.DAMAGED
    assert "gave 3 useless answers" in capsys.readouterr().out


def test_evicted_contents_are_no_fault(filled: Bazel, ci: Keys, tmp_path: Path) -> None:
    with faultyproxy.before(
        filled.url, lambda method, path, body: "evict" if "/cas/" in path else ""
    ) as proxy:
        here = Machine(tmp_path / "here", proxy.url, signers=ci)
        for _ in range(6):
            assert not here.has()
        assert here.remote.off == ""
        proxy.choose = lambda *words: ""
        assert here.has()


def test_who_saw_a_damaged_content_sends_it_anew(filled: Bazel, ci: Keys, tmp_path: Path) -> None:
    path = f"/prefix/cas/{hashlib.sha256(CONTENT['out']).hexdigest()}"
    filled.files[path] = bytes(len(CONTENT["out"]))
    here = Machine(tmp_path / "here", filled.url, signers=ci, key=ci)
    assert not here.has()
    here.put()
    assert filled.files[path] == CONTENT["out"]


def test_a_full_or_small_store(filled: Bazel, ci: Keys, tmp_path: Path) -> None:
    here = Machine(tmp_path / "here", filled.url, signers=ci)
    here.store.limit = 100_000
    assert not here.has()
    assert here.remote.off == ""


def test_what_was_refused_is_not_fetched_again(filled: Bazel, ci: Keys, tmp_path: Path) -> None:
    here = Machine(tmp_path / "here", filled.url, signers=ci)
    assert here.has()
    here.store.refuse(short_hash(CONTENT["out"]))
    for path in (here.top / "images").iterdir():
        path.unlink()
    assert not here.has()
    assert not here.has()
    assert here.remote.off == ""
    here.put()  # what is made here is another thing
    assert here.has()
    here.store.clear()
    assert here.has()


# Comparing


def test_what_is_made_again_is_compared(
    filled: Bazel, ci: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Machine(tmp_path / "here", filled.url, signers=ci, check=1)
    assert here.find() is None
    here.put()
    assert here.store.finish() is False
    said = capsys.readouterr().out
    assert "vmlinux was made again, to check the shared store: as ci@example.org made it" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({**CONTENT, "map": b"other"}, "map is "),
        ({**CONTENT, "out": b"a", "map": b"b"}, "out is "),
        ({"out": CONTENT["out"]}, "3 files there, 1 here"),
    ],
)
def test_a_difference_is_an_error(
    filled: Bazel,
    ci: Keys,
    content: dict[str, bytes],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = Machine(tmp_path / "here", filled.url, signers=ci, check=1)
    assert here.find() is None
    here.put(content=content)
    assert here.store.finish() is True
    error = capsys.readouterr().err
    assert (
        f"the shared store's vmlinux is not what is made here of the same inputs: {said}" in error
    )
    assert "signed by ci@example.org" in error
    assert f"entry {entry(filled).removeprefix('/prefix/')} of" in error
    # and what was made here is what counts from now on
    found = here.find()
    assert found
    assert [one.size for one in found[0].outputs] == [len(data) for data in content.values()]
    assert here.store.finish() is True


def test_another_mode_is_a_difference(filled: Bazel, ci: Keys, tmp_path: Path) -> None:
    here = Machine(tmp_path / "here", filled.url, signers=ci, check=1)
    assert here.find() is None
    result = here.result()
    outputs = [msgspec.structs.replace(result.outputs[0], mode=0o644), *result.outputs[1:]]
    here.store.put(
        KEY,
        FOUND,
        msgspec.structs.replace(result, outputs=outputs),
        [here.top / name for name in CONTENT],
    )
    assert here.store.finish() is True
    assert "out has mode 755 there and 644 here" in here.remote.checks.wrong[0]


def test_one_in_so_many_is_made_again(
    site: Bazel, ci: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the same one whenever it is asked for on that day."""
    writer = Machine(tmp_path / "ci", site.url, key=ci)
    names = [short_hash(f"{number}".encode()) for number in range(8)]
    for key in names:
        writer.put(key, content={"out": b"x"})
    here = Machine(tmp_path / "here", site.url, signers=ci, check=4)
    store_tag.tag(here.store.folder)
    checks, seen = here.remote.checks, []
    chosen = checks.chosen

    def noted(store: Any, offer: Any) -> bool:
        seen.append(chosen(store, offer))
        return seen[-1]

    monkeypatch.setattr(checks, "chosen", noted)
    first, second = ([bool(here.find(key)) for key in names] for _ in range(2))
    assert first == second
    assert first == [not again for again in seen[: len(names)]]
    offers: list[Any] = [SimpleNamespace(place=number) for number in range(400)]
    count = sum(chosen(here.store, offer) for offer in offers)
    assert 55 <= count <= 145  # 100; less than one in a million lies outside
    checks.one_in = 0
    assert all(here.find(key) for key in names)


# Passwords


class Locked:
    """A server that wants a login; `logins` are those that it got."""

    def __init__(self, site: Bazel, wanted: str) -> None:
        self.site, self.wanted = site, wanted
        self.logins: list[str] = []

    def choose(self, method: str, path: str, body: bool) -> str:
        return "" if self.logins[-1:] == [self.wanted] else "401"


@pytest.mark.parametrize("how", ["environment", "token", "netrc", "none", "wrong"])
def test_logins(
    filled: Bazel,
    ci: Keys,
    how: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    basic = f"Basic {base64.b64encode('ci:s3cr3t ü'.encode()).decode()}"
    locked = Locked(filled, "Bearer s3cr3t" if how == "token" else basic)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ci password s3cr3tx\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("HOME", raising=False)
    if how in ("none", "environment"):
        monkeypatch.delenv("NETRC")
    if how == "netrc":
        locked.wanted = f"Basic {base64.b64encode(b'ci:s3cr3tx').decode()}"
    login = {
        "environment": Login("ci", "s3cr3t ü"),
        "token": Login(token="s3cr3t"),
        "wrong": Login("ci", "s3cr3t"),
    }.get(how, Login())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            locked.logins.append(self.headers.get("Authorization", ""))
            path = self.path.removeprefix("/prefix/")
            data = filled.files.get(f"/prefix/{path}", b"")
            right = locked.logins[-1] == locked.wanted
            self.send_response(200 if right else 401)
            self.send_header("Content-Length", str(len(data) if right else 0))
            self.end_headers()
            if right:
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with cacheservers.serving(Handler) as url:
        here = Machine(tmp_path / "here", f"{url}/prefix", signers=ci, login=login)
        assert here.has() == (how not in ("none", "wrong"))
    said = capsys.readouterr()
    assert "s3cr3t" not in said.out + said.err
    if how in ("none", "wrong"):
        assert "it wants another login (401)" in said.out
        assert len(locked.logins) == 1


def test_no_redirect_is_followed(filled: Bazel, ci: Keys, tmp_path: Path) -> None:
    seen: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)

    with cacheservers.serving(Elsewhere) as elsewhere:

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(302)
                self.send_header("Location", f"{elsewhere}/x?token=s3cr3t")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        with cacheservers.serving(Handler) as url:
            here = Machine(tmp_path / "here", url, signers=ci, login=Login("ci", "s3cr3t"))
            assert not here.has()
    assert seen == []
    assert "redirects to http://127.0.0.1" in here.remote.off
    assert "s3cr3t" not in here.remote.off


def test_connections_are_used_again(filled: Bazel, ci: Keys, tmp_path: Path) -> None:
    """A handshake for each of some hundred requests would take longer than they do."""
    ports: set[int] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            ports.add(self.client_address[1])
            data = filled.files.get(self.path)
            self.send_response(200 if data is not None else 404)
            self.send_header("Content-Length", str(len(data or b"gone")))
            self.end_headers()
            self.wfile.write(data or b"gone")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with cacheservers.serving(Handler) as url:
        here = Machine(tmp_path / "here", f"{url}/prefix", signers=ci)
        for number in range(10):
            assert here.find(short_hash(f"{number}".encode())) is None
        assert here.has()
    assert len(ports) <= 3


def test_what_doit_store_says(filled: Bazel, ci: Keys, tmp_path: Path) -> None:
    here = Machine(tmp_path / "here", filled.url, signers=ci, key=ci)
    said = here.remote.described()
    assert f"takes what {ci.signers} lists, sends what is made here; answers in 0." in said
    dead = Machine(tmp_path / "dead", f"http://127.0.0.1:{closed_port()}")
    assert "takes nothing, sends nothing; is not used: it refuses" in dead.remote.described()
