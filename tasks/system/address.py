"""Web addresses as they are shown, kept and asked.

A password in one goes to its server, and nowhere else.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

from tasks.system.terminal import printable

# An address in a text. The user's part ends with the last @ before the path (RFC 3986, section
# 3.2.1). Where what stands after the first colon is no port, it is a password with a sign in it
# that should have been escaped: that goes, too.
_ADDRESS = re.compile(r"""(?x) ([A-Za-z][A-Za-z0-9+.-]*://)
    (?: [^\s/?\#]*@ | [^\s/?\#@\[]*:[^\s@]*@ )?
    ( [^\s?'"]* ) ( \?[^\s'"]*[^\s'":;,.)] )?""")
_IN_URLLIB3 = re.compile(
    r"(?<=with url: )\S+"
)  # urllib3 repeats the path with its query in its messages


def hidden(text: str) -> str:
    """Return a text with each address in it without user, password and query.

    A query goes as a whole, since servers hide keys and signatures under any name in it:
    "http://u:p@h/f?key=1" becomes "http://h/f?...".
    """
    if "://" not in text and "with url" not in text:
        return text
    plain = _ADDRESS.sub(lambda found: found[1] + found[2] + ("?..." if found[3] else ""), text)
    return _IN_URLLIB3.sub("...", plain)


def shown(text: object) -> str:
    """Return a text that is, or came, from elsewhere, for the console or a file of ours.

    Without passwords (see `hidden`), and with what a terminal would obey made visible.
    """
    return printable(hidden(str(text)))


def split(url: str) -> tuple[SplitResult, tuple[bytes, bytes] | None]:
    """Return an http or https address without user and password, and these two decoded.

    They are None where there are none.

    Raises ValueError, without a password in it, for what is no such address.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"'{shown(url)}' is no valid address") from None
    if (
        parts.scheme.lower() not in ("http", "https")
        or not parts.hostname
        or re.search(r"[\0-\x20\x7f\\]", url)
    ):
        raise ValueError(f"'{shown(url)}' is no http or https address")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    plain = parts._replace(
        scheme=parts.scheme.lower(), netloc=host if port is None else f"{host}:{port}", fragment=""
    )
    if parts.username is None:
        return plain, None
    return plain, (
        unquote(parts.username).encode(errors="surrogateescape"),
        unquote(parts.password or "").encode(errors="surrogateescape"),
    )


def origin(parts: SplitResult) -> tuple[str, str, int]:
    """Return scheme, host and port of an address.

    What a password is given to (RFC 6454, section 4).
    """
    return (
        parts.scheme,
        parts.hostname or "",
        parts.port or (443 if parts.scheme == "https" else 80),
    )
