"""The shared store that the settings name (see cache/remote.py)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.config.resolve import SECRETS
from tasks.config.settings import Settings
from tasks.system import address
from tasks.system.errors import PiggyError

if TYPE_CHECKING:
    from tasks.cache.remote import Remote

_LOGIN = f"{', '.join(SECRETS[:2])} and {SECRETS[2]} in the environment, or ~/.netrc"


def check(chosen: Settings, origins: Mapping[str, str]) -> None:
    """Check the settings of the shared store.

    Args:
        chosen: The settings.
        origins: Where each comes from.

    Raises:
        PiggyError: One of them can't be used.
    """
    for name in ("store_signers", "store_key"):
        value = getattr(chosen, name)
        if value and not os.path.isfile(os.path.expanduser(value)):
            raise PiggyError(f"{origins[name]}: {name}={value} is no file")
    if chosen.store_push and not (chosen.store_key and chosen.store_remote):
        lacks = "store_remote" if chosen.store_key else "store_key"
        raise PiggyError(
            f"{origins['store_push']}: store_push=yes needs {lacks}=, which is not set",
            "docs/sharedstore.md says how results are shared",
        )
    if not chosen.store_remote:
        return
    origin = origins["store_remote"]
    try:
        parts, login = address.split(chosen.store_remote)
    except ValueError as error:
        raise PiggyError(f"{origin}: store_remote: {error}") from None
    if login is not None or parts.query:
        raise PiggyError(
            f"{origin}: store_remote={address.shown(chosen.store_remote)} holds a password or a"
            " query, which others could see",
            f"a login comes from {_LOGIN}",
        )


def opened(chosen: Settings) -> Remote | None:
    """Return the shared store; None for none, or with offline=yes. Nothing is sent yet.

    Args:
        chosen: The settings, checked.
    """
    if not chosen.store_remote or chosen.offline:
        return None
    from tasks.cache.remote import Remote
    from tasks.cache.remote_http import Login

    return Remote(
        chosen.store_remote,
        Login(*(os.environ.get(name, "") for name in SECRETS)),
        Path(chosen.store_signers).expanduser() if chosen.store_signers else None,
        Path(chosen.store_key).expanduser() if chosen.store_push else None,
        chosen.store_check,
    )
