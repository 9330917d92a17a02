from __future__ import annotations

import pytest

from tasks.kit import address


@pytest.mark.parametrize(("text", "shown"), [
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
    ("pool(host='h'): failed with url: /f?key=1 (Caused by x)", "pool(host='h'): failed with url: ... (Caused by x)"),
    ("'http://u:p@h/x' and 'http://v:q@i/y'", "'http://h/x' and 'http://i/y'"),
    ("mail a@b.c", "mail a@b.c"),
    ("a\x1b[2J\u202eb\tc", "a\\x1b[2J\\u202eb\tc"),
    (ValueError("http://u:p@h"), "http://h"),
])
def test_shown(text: object, shown: str) -> None:
    assert address.shown(text) == shown


def test_split() -> None:
    parts, login = address.split("HTTP://me:a%40b@Host.example:81/f?q=1#x")
    assert (parts.geturl(), login) == ("http://host.example:81/f?q=1", (b"me", b"a@b"))
    assert address.split("https://[::1]/f")[0].geturl() == "https://[::1]/f"
    assert address.split("https://h/f")[1] is None
    assert address.origin(parts) == ("http", "host.example", 81)
    assert address.origin(address.split("https://h/f")[0]) == ("https", "h", 443)


@pytest.mark.parametrize("url", ["ftp://u:secret@h/f", "http://u:secret@/f", "http://u:secret@[::1/f", "nonsense",
                                 "http://u:secret/x@h/", "http://h:99999/", "http://u:secret@h/\r\nX-Evil: 1", "//h/f",
                                 "http://h\\@evil/f"])
def test_what_is_no_address_is_said_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="is no") as caught:
        address.split(url)
    assert "secret" not in str(caught.value)
    assert "\r" not in str(caught.value)
