from __future__ import annotations

from pathlib import Path

import cacheservers
import pytest
from cacheservers import Keys

from tasks.cache import signing
from tasks.cache.signing import Signers, sign
from tasks.system import process
from tasks.system.errors import PiggyError

TEXT = "piggyback store 0123\n"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return cacheservers.keys(tmp_path_factory.mktemp("ours"), "ci@example.org")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return cacheservers.keys(tmp_path_factory.mktemp("theirs"), "mallory@example.org")


def test_who_signed(ours: Keys, theirs: Keys, tmp_path: Path) -> None:
    both = tmp_path / "signers"
    both.write_text(ours.signers.read_text() + theirs.signers.read_text())
    signers = Signers(both)
    for _ in range(2):
        assert signers.who(sign(ours.key, TEXT), TEXT) == "ci@example.org"
        assert signers.who(sign(theirs.key, TEXT), TEXT) == "mallory@example.org"


def test_nobody_else_is_believed(ours: Keys, theirs: Keys) -> None:
    signers, good = Signers(ours.signers), sign(ours.key, TEXT)
    assert signers.who(good, TEXT) == "ci@example.org"
    lines = good.splitlines()
    for bad in (
        sign(theirs.key, TEXT),
        "",
        "x",
        good[:-40],
        good.replace(lines[-2], lines[-2][::-1]),
        "\n".join([lines[0], "U1NIU0lH", lines[-1]]),
        "\n".join([lines[0], "=", lines[-1]]),
        good + good,
        lines[0] + "\n" + "A" * signing.LONGEST + "\n" + lines[-1],
    ):
        assert signers.who(bad, TEXT) == "", bad
    assert signers.who(good, TEXT + "x") == ""


@pytest.mark.parametrize(
    ("options", "believed"),
    [
        ("", True),
        ('namespaces="git"', False),
        ('namespaces="git,piggyback"', True),
        ('valid-before="20200101"', False),
        ('valid-after="20200101"', True),
        ("cert-authority", False),
    ],
)
def test_the_list_says_what_a_key_may_sign(
    ours: Keys, options: str, believed: bool, tmp_path: Path
) -> None:
    words = ours.signers.read_text().split()
    (tmp_path / "signers").write_text(f"a@b,c@d {options} {words[-2]} {words[-1]}\n")
    who = Signers(tmp_path / "signers").who(sign(ours.key, TEXT), TEXT)
    assert who == ("a@b" if believed else "")


def test_a_signature_for_something_else(ours: Keys) -> None:
    """One for a commit, by the same key."""
    done = process.run(
        ["ssh-keygen", "-Y", "sign", "-q", "-f", str(ours.key), "-n", "git"], stdin=TEXT
    )
    assert "BEGIN SSH SIGNATURE" in done.output
    start = done.output.index("-----BEGIN")
    assert Signers(ours.signers).who(done.output[start:], TEXT) == ""


@pytest.mark.parametrize("what", ["missing", "readable by all", "with a passphrase", "no key"])
def test_a_key_that_cant_sign(what: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    if what == "no key":
        key.write_text("x")
    elif what != "missing":
        secret = "secret" if what == "with a passphrase" else ""
        process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", secret, "-f", str(key)])
        key.chmod(0o644 if what == "readable by all" else 0o600)
    with pytest.raises(PiggyError, match="can't sign with store_key="):
        sign(key, TEXT)


def test_without_ssh_keygen(ours: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = sign(ours.key, TEXT)
    monkeypatch.setattr(process, "clean_env", lambda extra=None: {"PATH": str(tmp_path)})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PiggyError, match="'ssh-keygen' is not installed"):
        Signers(ours.signers).who(good, TEXT)
