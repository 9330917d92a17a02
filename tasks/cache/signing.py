"""Signatures by SSH keys, made and checked by ssh-keygen.

Who may sign is in a file of the form of ssh-keygen(1), "ALLOWED SIGNERS", which knows times,
certificates and namespaces. A signature is one of OpenSSH's PROTOCOL.sshsig, for the namespace
"piggyback": one made for a mail or a commit does not count.
"""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from pathlib import Path

from tasks.system import process
from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern

NAMESPACE = "piggyback"
LONGEST = 20_000  # characters of a signature; those by RSA keys of 16,384 bits have some 6,000
_ARMOUR = pattern(r"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)-----END SSH SIGNATURE-----")
_MAGIC = b"SSHSIG"


def sign(key: Path, text: str) -> str:
    """Return a signature of a text.

    Args:
        key: A private key without a passphrase, or the public key of one that ssh-agent holds.
        text: The text.

    Raises:
        PiggyError: ssh-keygen is missing, or did not sign.
    """
    done = _keygen("sign", "-q", "-f", os.fspath(key), "-n", NAMESPACE, text=text)
    found = _ARMOUR.search(done.output)
    if done.returncode or not found:
        why = (done.output.strip().splitlines() or ["it says nothing"])[-1]
        raise PiggyError(
            f"ssh-keygen can't sign with store_key={key}: {why}",
            "it must be a private key without a passphrase that only you can read, or the public"
            " key of one that ssh-agent holds",
        )
    return found[0] + "\n"


class Signers:
    """The keys that are believed, as listed in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names: dict[bytes, str] = {}  # the name to ask for, by key

    def who(self, signature: str, text: str) -> str:
        """Return who signed a text; "" if nobody did who is listed.

        Raises:
            PiggyError: ssh-keygen is missing.
        """
        key = _key_of(signature)
        if not key:
            return ""
        with tempfile.NamedTemporaryFile("w", prefix="piggyback-", suffix=".sig") as file:
            file.write(signature)
            file.flush()
            where = ("-s", file.name, "-f", os.fspath(self.path))
            if key not in self._names:
                found = _keygen("find-principals", *where)
                lines = found.output.splitlines()
                self._names[key] = lines[0].strip() if not found.returncode and lines else ""
            name = self._names[key]
            if not name or name.startswith("-"):
                return ""
            done = _keygen("verify", *where, "-I", name, "-n", NAMESPACE, text=text)
        return name if done.returncode == 0 else ""


def _key_of(signature: str) -> bytes:
    """Return the public key that a signature names; b"" for what is no signature.

    It only tells signatures by one key from those by another: ssh-keygen checks it.
    """
    found = _ARMOUR.fullmatch(signature.strip()) if len(signature) <= LONGEST else None
    if not found:
        return b""
    try:
        data = base64.b64decode(found[1])
    except binascii.Error:
        return b""
    start = len(_MAGIC) + 8  # the version, the length of the key
    length = int.from_bytes(data[start - 4 : start])
    return data[start : start + length] if data.startswith(_MAGIC) else b""


def _keygen(action: str, *words: str, text: str = "") -> process.Completed:
    """Run `ssh-keygen -Y`; it never asks for a passphrase (ssh(1), SSH_ASKPASS_REQUIRE)."""
    env = {"SSH_ASKPASS_REQUIRE": "never"}
    if agent := os.environ.get("SSH_AUTH_SOCK"):
        env["SSH_AUTH_SOCK"] = agent
    return process.run(["ssh-keygen", "-Y", action, *words], stdin=text, env=env, check=False)
