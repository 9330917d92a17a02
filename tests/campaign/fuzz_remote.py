"""A shared store that says whatever it likes, as if it were signed: what comes is the result that
was asked for, or nothing; and nothing is written elsewhere."""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from fuzz import Target, mutated
from fuzz_store import CONTENT, DIGEST, KEY, NAMES, ODD, PATHS, TOKENS

from tasks.cache import store_tag
from tasks.cache.action_result import ActionResult, OutputFile, encode
from tasks.cache.remote import Remote
from tasks.cache.remote_entries import name_of
from tasks.cache.remote_http import Login
from tasks.cache.store import Store
from tasks.cache.store_files import Place, short_hash, state
from tasks.system.errors import PiggyError

STATES = [f"{name} now" for name in NAMES.decode().split("\0")]
PLACE = Place(KEY, short_hash(NAMES), state(STATES))
Files = dict[str, bytes]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make(rng: random.Random) -> Files:
    """What the server has: an index, a list, an entry, a content, a pack; one of them changed, as a
    rule."""
    result: dict[str, Any] = {
        "task": "vmlinux",
        "time": 1.0,
        "values": {"commands": 7},
        "outputs": [[DIGEST, len(CONTENT), 0o755]],
        "made": {},
    }
    listed = {"type": "names", "format": 1, "key": KEY, "sha256": sha256(NAMES), "size": len(NAMES)}
    made = {"type": "result", "format": 1, "place": list(PLACE), "result": result}
    made["sha256s"] = [sha256(CONTENT)]
    packed: list[Any] = [list(PLACE), NAMES, result, [CONTENT]]
    kind = rng.randrange(11)
    if kind < 4:
        where: Any = rng.choice([result, listed, made, result["outputs"][0], packed, packed[0]])
        key = rng.choice(list(where)) if isinstance(where, dict) else rng.randrange(len(where))
        where[key] = rng.choice([*ODD, *PATHS])
    try:
        parts = [msgspec.msgpack.encode(one) for one in (listed, made, [packed])]
    except UnicodeEncodeError:
        parts = [b"\x81\xa4type\xa1\xff"] * 3
    if kind == 4:
        number = rng.randrange(3)
        parts[number] = mutated(rng, parts[number], TOKENS)
    pack = zlib.compress(parts[2])
    bundle = {"type": "pack", "format": 1, "key": KEY, "sha256": sha256(pack), "size": len(pack)}
    file = OutputFile("x", sha256(CONTENT), len(CONTENT))
    files = {
        f"ac/{name_of('names', KEY)}": action([[parts[0], "signed"]], file),
        f"ac/{name_of('result', *PLACE)}": action([parts[1], "signed"], file),
        f"ac/{name_of('pack', KEY)}": action([msgspec.msgpack.encode(bundle), "signed"], file),
        f"cas/{sha256(NAMES)}": NAMES,
        f"cas/{sha256(CONTENT)}": CONTENT,
        f"cas/{sha256(pack)}": pack,
    }
    if kind in (5, 6):
        path = rng.choice(list(files))
        files[path] = mutated(rng, files[path], TOKENS)
    elif kind == 7:
        one, other = rng.choice(list(files)), rng.choice(list(files))
        files[one], files[other] = files[other], files[one]
    return files


def action(stdout: Any, file: OutputFile) -> bytes:
    return encode(ActionResult([file], msgspec.msgpack.encode(stdout)))


class Says:
    """In place of the server."""

    shown = "http://x"

    def __init__(self, files: Files) -> None:
        self.files = files

    def get(self, path: str, most: int) -> Iterator[bytes] | None:
        return iter([self.files[path]]) if path in self.files else None

    def read(self, path: str, most: int) -> bytes | None:
        return self.files.get(path)


class Everybody:
    """In place of the signers: all are believed."""

    path = Path("signers")

    def who(self, signature: str, text: str) -> str:
        return "x"


def check(files: Files, folder: Path) -> None:
    """Look the result up and bring it back, then take the pack."""
    remote = Remote("http://x", Login(), None, None, 0)
    remote.server, remote.signers = Says(files), Everybody()  # type: ignore[assignment]
    remote.tell = lambda text: None  # type: ignore[method-assign]
    store = Store(folder / "store", 1 << 20, remote)
    store_tag.tag(store.folder)
    target = folder / "image"
    taken = brought(store, target)
    store = Store(folder / "other", 1 << 20, remote)
    store_tag.tag(store.folder)
    store.fetch_pack(KEY)
    store.remote = None
    target.unlink(missing_ok=True)
    if not (taken and brought(store, target)):
        raise PiggyError("the server has no such result")


def brought(store: Store, target: Path) -> bool:
    found = store.find(KEY, lambda names: {name: f"{name} now" for name in names})
    if not found or not store.bring_back(found[0], [target]):
        assert not target.exists()
        return False
    # a signer may say that another content is the result; but what comes is what he says
    assert short_hash(target.read_bytes()) == found[0].outputs[0].digest
    assert not target.stat().st_mode & 0o7022
    msgspec.json.encode(found[0].values)
    return True


TARGETS = [Target("shared store", make, check)]
