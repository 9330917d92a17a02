from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest

from tasks import sources
from tasks.config.pins import Source
from tasks.config.settings import Settings
from tasks.reports import settings
from tasks.system import address


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://h/f.tar.xz", "http://h/f.tar.xz"),
        ("http://u:p@h:8080/f", "http://h:8080/f"),
        ("https://token@h/f", "https://h/f"),
        ("http://u:p@ss@h/f", "http://h/f"),
        ("http://u:p/w@h/f", "http://h/f"),
        ("http://u:p?w@h/f", "http://h/f"),
        ("http://u:p#w@h/f", "http://h/f"),
        ("http://:p@h/f", "http://h/f"),
        ("http://u:%70@[::1]:80/f", "http://[::1]:80/f"),
        ("http://h/a@b", "http://h/a@b"),
        ("http://[::1]/a@b", "http://[::1]/a@b"),
        ("git+ssh://u:p@h/x", "git+ssh://h/x"),
        ("http://h/f?X-Signature=abc&b=1", "http://h/f?..."),
        ("http://u:p@h/f?key=1: HTTP status 404", "http://h/f?...: HTTP status 404"),
        ("http://h/f?...: HTTP status 404", "http://h/f?...: HTTP status 404"),
        (
            "pool(host='h'): failed with url: /f?key=1 (Caused by x)",
            "pool(host='h'): failed with url: ... (Caused by x)",
        ),
        ("'http://u:p@h/x' and 'http://v:q@i/y'", "'http://h/x' and 'http://i/y'"),
        ("mail a@b.c", "mail a@b.c"),
        ("a\x1b[2J\u202eb\tc", "a\\x1b[2J\\u202eb\tc"),
        (ValueError("http://u:p@h"), "http://h"),
    ],
)
def test_shown(text: object, shown: str) -> None:
    assert address.shown(text) == shown


def test_split() -> None:
    parts, login = address.split("HTTP://me:a%40b@Host.example:81/f?q=1#x")
    assert (parts.geturl(), login) == ("http://host.example:81/f?q=1", (b"me", b"a@b"))
    assert address.split("https://[::1]/f")[0].geturl() == "https://[::1]/f"
    assert address.split("https://h/f")[1] is None
    assert address.origin(parts) == ("http", "host.example", 81)
    assert address.origin(address.split("https://h/f")[0]) == ("https", "h", 443)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://u:secret@h/f",
        "http://u:secret@/f",
        "http://u:secret@[::1/f",
        "nonsense",
        "http://u:secret/x@h/",
        "http://h:99999/",
        "http://u:secret@h/\r\nX-Evil: 1",
        "//h/f",
        "http://h\\@evil/f",
    ],
)
def test_what_is_no_address_is_said_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="is no") as caught:
        address.split(url)
    assert "secret" not in str(caught.value)
    assert "\r" not in str(caught.value)


def test_settings_are_shown_without_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    known = Settings(
        mirror="http://me:s3cret@h/debian", buildroot_site="https://s3cret@h/?key=s3cret"
    )
    settings.show(
        SimpleNamespace(project=SimpleNamespace(settings=known, origins=defaultdict(str)))
    )  # type: ignore[arg-type]
    said = capsys.readouterr().out
    assert "s3cret" not in said
    assert "http://h/debian" in said


def test_a_pin_is_kept_without_a_password() -> None:
    pin = Source("tool", "1", ("https://me:s3cret@h/tool.tar?key=s3cret",), "0" * 64)
    assert sources._shown(pin).urls == ("https://h/tool.tar?...",)
