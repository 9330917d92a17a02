"""What the entries of a shared store hold (see cache/remote.py): statements, and who signed them.

A statement says what it is about: the key, or key, list and state. So one that was signed for
another task, or for other inputs, is none for this.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import msgspec

from tasks.cache.store_files import LONGEST, Place, Result

FORMAT = 1  # of what is kept; part of every name, so that another one is never looked at
_Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Listed(msgspec.Struct, frozen=True, tag="names"):
    """The statement that a key has a list of names: SHA256 and size in bytes of the list."""

    format: int
    key: str
    sha256: _Sha256
    size: Annotated[int, msgspec.Meta(ge=0, le=LONGEST)]


class Made(msgspec.Struct, frozen=True, tag="result"):
    """The statement that a result lies at a place; with the SHA256 of each output's content."""

    format: int
    place: Place
    result: Result
    sha256s: list[_Sha256]


class Bundle(msgspec.Struct, frozen=True, tag="pack"):
    """The statement that a key has a pack of results (see remote_pack.py): its SHA256 and size."""

    format: int
    key: str
    sha256: _Sha256
    size: Annotated[int, msgspec.Meta(ge=0, le=1 << 28)]


class Signed(msgspec.Struct, frozen=True, array_like=True):
    """A statement, encoded, and its signature."""

    statement: bytes
    signature: str


class Offer(Result, frozen=True, kw_only=True):
    """A result that the server has: with its place, its list of names, and who signed it."""

    place: Place
    names: bytes
    sha256s: list[str]
    signer: str

    def result(self) -> Result:
        """Return it as the local store keeps it."""
        return Result(self.task, self.time, self.values, self.outputs, self.made)


def offered(result: Result, place: Place, signer: str, sha256s: list[str] | None = None) -> Offer:
    """Return a result as an offer, still without its list of names."""
    parts = {name: getattr(result, name) for name in result.__struct_fields__}
    return Offer(place=place, names=b"", sha256s=sha256s or [], signer=signer, **parts)


def name_of(*words: str) -> str:
    """Return the name of an entry: a SHA256, as the protocol wants it."""
    return hashlib.sha256("\0".join(["piggyback", str(FORMAT), *words]).encode()).hexdigest()


def text_of(statement: bytes) -> str:
    """Return the text that is signed for a statement."""
    return f"piggyback store {hashlib.sha256(statement).hexdigest()}\n"


def decoded(data: bytes, kind: Any) -> Any:
    """Return what data holds; None if it is no such thing."""
    try:
        found = msgspec.msgpack.decode(data, type=kind)
        if isinstance(found, Made):
            msgspec.json.encode(found.result.values)  # they go into the journal
        return found
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return None
