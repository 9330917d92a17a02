"""Web addresses: hide their passwords in text, split them into parts.

A password in an address goes to its server and nowhere else: not to a log, not to the console.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

from tasks.system.pattern import pattern
from tasks.system.terminal import printable

# An address in a text. The user's part ends with the last @ before the path (RFC 3986, section
# 3.2.1). Where what stands after the first colon is no port, it is a password with a sign in it
# that should have been escaped: that goes, too.
_ADDRESS = pattern(r"""(?x) ([A-Za-z][A-Za-z0-9+.-]*://)
    (?: [^\s/?\#]*@ | [^\s/?\#@\[]*:[^\s@]*@ )?
    ( [^\s?'"]* ) ( \?[^\s'"]*[^\s'":;,.)] )?""")
# urllib3 repeats the path with its query in its messages.
_IN_URLLIB3 = pattern(r"(?<=with url: )\S+")


def hidden(text: str) -> str:
    """Remove user, password and query from each web address in a text.

    The whole query is removed, since servers put keys and signatures under any name into it:
    "http://u:p@h/f?key=1" becomes "http://h/f?...".
    """
    if "://" not in text and "with url" not in text:
        return text
    plain = _ADDRESS.sub(lambda found: found[1] + found[2] + ("?..." if found[3] else ""), text)
    return _IN_URLLIB3.sub("...", plain)


def shown(text: object) -> str:
    """Make foreign text fit for the console or a log.

    Passwords are removed (see `hidden`), and control characters are escaped (see
    `terminal.printable`).
    """
    return printable(hidden(str(text)))


def split(url: str) -> tuple[SplitResult, tuple[bytes, bytes] | None]:
    """Split an http or https address into its parts and its credentials.

    Args:
        url: The address, as the user wrote it.

    Returns:
        The parts without user and password, and (user, password) decoded; None in place of the
        pair if the address has no user.

    Raises:
        ValueError: It is no http or https address. The message holds no password.
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
    """Return scheme, host and port of an address: its origin (RFC 6454, section 4).

    A password is sent to the origin that it was given for, and to no other.
    """
    return (
        parts.scheme,
        parts.hostname or "",
        parts.port or (443 if parts.scheme == "https" else 80),
    )
