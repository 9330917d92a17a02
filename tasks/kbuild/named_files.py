"""Files that string symbols of the configuration name: firmware, keys, an initramfs.

They may lie anywhere, and Kbuild records only some of them. A symbol names files if the tree's
makefiles or scripts use it, as they use CONFIG_INITRAMFS_SOURCE; CONFIG_MODPROBE_PATH, a path of
the running system, is used by C code only. A folder counts with all files below it. A relative name
is searched where make searches it: in the object folder, then in the tree (VPATH), and in a folder
that another symbol names.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from tasks.cache.digests import MISSING, Stamps
from tasks.kbuild import records
from tasks.system.files import decoded, packed, write_whole
from tasks.system.pattern import pattern
from tasks.system.process import clean_env
from tasks.system.terminal import printable

CACHE = "piggyback.named"
# Symbols whose files must be there, each with the symbol whose folder its names are in (relative to
# the tree), if any. Sources: usr/Makefile, drivers/base/firmware_loader/builtin/Makefile,
# certs/Makefile, lib/Makefile, net/wireless/Makefile, drivers/firmware/efi/libstub/Makefile
# (EFI_SBAT_FILE), scripts/gen_autoksyms.sh.
_KNOWN = {
    "INITRAMFS_SOURCE": "",
    "EXTRA_FIRMWARE": "EXTRA_FIRMWARE_DIR",
    "SYSTEM_TRUSTED_KEYS": "",
    "SYSTEM_REVOCATION_KEYS": "",
    "SYSTEM_BLACKLIST_HASH_LIST": "",
    "BOOT_CONFIG_EMBED_FILE": "",
    "MODULE_SIG_KEY": "",
    "EFI_SBAT_FILE": "",
    "CFG80211_EXTRA_REGDB_KEYDIR": "",
    "UNUSED_KSYMS_WHITELIST": "",
}
# The files that these name go into vmlinux and into no module.
_NOT_IN_MODULES = {
    "INITRAMFS_SOURCE",
    "EXTRA_FIRMWARE",
    "EXTRA_FIRMWARE_DIR",
    "SYSTEM_TRUSTED_KEYS",
    "SYSTEM_REVOCATION_KEYS",
    "SYSTEM_BLACKLIST_HASH_LIST",
    "BOOT_CONFIG_EMBED_FILE",
    "EFI_SBAT_FILE",
}
# The value of CONFIG_MODULE_SIG_KEY for which certs/Makefile generates the key.
GENERATED_KEY = "certs/signing_key.pem"
# Generated at random if missing, and part of all objects (scripts/basic/Makefile; the second before
# 5.19).
_SEEDS = ("scripts/basic/randstruct.seed", "scripts/gcc-plugins/randomize_layout_seed.h")
_STRING = pattern(r'^CONFIG_(\w+)="(.+)"$', re.MULTILINE)
# A line "file NAME LOCATION ..." of a list for usr/gen_init_cpio.c.
_LISTED = pattern(rb"^[ \t]*file[ \t]+\S+[ \t]+(\S+)", re.MULTILINE)
_LONGEST_LIST = 1 << 24
_VARIABLE = pattern(r"\$[({](\w+)[)}]")


class Missing(msgspec.Struct, frozen=True):
    """A missing file that a symbol names.

    Attributes:
        symbol: The symbol, without CONFIG_.
        word: The word of its value.
        path: Where the file is expected.
    """

    symbol: str
    word: str
    path: str

    @property
    def text(self) -> str:
        """A sentence for a message."""
        return printable(f"CONFIG_{self.symbol} names {self.word}, and there is no {self.path}")


class Named(msgspec.Struct):
    """The files that the symbols of a configuration name.

    Attributes:
        roots: "SYMBOL word" to the files and folders that the word stands for: path to state.
        missing: The files that must exist and don't.
        made: Files of the object folder that make generates, at random, if they are missing.
    """

    roots: dict[str, dict[str, str]] = {}
    missing: list[Missing] = []
    made: list[str] = []

    def states(self, modules: bool = False) -> dict[str, str]:
        """Return path to state.

        Args:
            modules: Whether to leave out files that go into vmlinux only.
        """
        return {
            path: state
            for root, part in self.roots.items()
            if not modules or root.partition(" ")[0] not in _NOT_IN_MODULES
            for path, state in part.items()
        }

    def digests(self) -> dict[str, str]:
        """Return for each root a digest of its states."""
        import hashlib

        return {
            root: hashlib.sha256(
                repr(sorted(part.items())).encode(errors="surrogateescape")
            ).hexdigest()[:32]
            for root, part in self.roots.items()
        }


def find(config: Path, tree: Path, obj: Path, stamps: Stamps) -> Named:
    """Return the files that the string symbols of a configuration name.

    Args:
        config: The .config file; a missing one names no files.
        tree: The kernel tree.
        obj: The object folder.
        stamps: Digests of files.
    """
    try:
        text = config.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return Named()
    values = {symbol: _plain(value, tree, obj) for symbol, value in _STRING.findall(text)}
    named = Named()
    for name in _SEEDS:
        if "RANDSTRUCT" in text and (obj / name).exists():
            named.made.append(os.fspath(obj / name))
    folders = {
        symbol: folder
        for symbol, value in values.items()
        if symbol.endswith("_DIR")
        and not re.search(r"\s", value)
        and os.path.isdir(folder := os.path.join(os.path.realpath(tree), value))
    }
    for symbol, value in values.items():
        if (
            symbol in _KNOWN.values()
            or symbol in folders
            and f'\nCONFIG_{symbol.removesuffix("_DIR")}="' in text
        ):
            continue  # another symbol names files in this folder, and only those count
        search = _places(symbol, values, folders, tree, obj)
        matches = {word: _found(word, search) for word in value.split()}
        if symbol in _KNOWN or any(matches.values()) and _used(symbol, tree, obj):
            for word, paths in matches.items():
                _take(named, symbol, word, paths, search, obj, stamps)
    return named


def targets(obj: Path, roots: Iterable[str], edges: Iterable[tuple[str, str]]) -> set[str]:
    """Return the targets that are made from changed roots.

    They are found by make's prerequisites and by the words of the saved commands.

    Args:
        obj: The object folder.
        roots: Keys of Named.roots.
        edges: Pairs of a target and a prerequisite outside of the object folder.

    Returns:
        The targets, relative to the object folder.
    """
    words = {root.partition(" ")[2] for root in roots}
    ends = {word if word.startswith("/") else f"/{word}" for word in map(_after_parents, words)}
    users = {
        target
        for target, path in edges
        if any(path.endswith(end) or f"{end}/" in path for end in ends)
    }
    spelled = re.compile(
        "|".join(rf"(?<![\w.+-]){re.escape(word)}(?![\w+-])" for word in sorted(words))
    )
    for record in records.below(obj):
        if spelled.search(records.command(record)):
            users.add(records.target_of(os.path.relpath(record, obj)))
    return users


def _after_parents(word: str) -> str:
    """Return what a word has after its last "..", as the path of an edge has no such name."""
    return word.rpartition("../")[2]


def _plain(value: str, tree: Path, obj: Path) -> str:
    """Return a string of a .config file without escapes, and with known variables expanded."""
    known = {
        **clean_env(),
        "srctree": os.path.realpath(tree),
        "abs_srctree": os.path.realpath(tree),
        "objtree": os.path.realpath(obj),
        "abs_objtree": os.path.realpath(obj),
    }
    text = re.sub(r"\\(.)", r"\1", value)
    return _VARIABLE.sub(lambda found: known.get(found[1], found[0]), text)


def _places(
    symbol: str, values: Mapping[str, str], folders: Mapping[str, str], tree: Path, obj: Path
) -> list[str]:
    """Return the folders in which a symbol's relative names are searched.

    Args:
        symbol: The symbol, without CONFIG_.
        values: All string symbols: name to value.
        folders: The symbols that name a folder: name to path.
        tree: The kernel tree.
        obj: The object folder.
    """
    base = _KNOWN.get(symbol)
    if base:
        return [os.path.join(os.path.realpath(tree), values.get(base, "/lib/firmware"))]
    own = [os.path.realpath(obj), os.path.realpath(tree)]  # where make is, if a link leads there
    return own if symbol in _KNOWN else [*own, *dict.fromkeys(folders.values())]


def _found(word: str, places: Iterable[str]) -> list[str]:
    """Return the files and folders that a word stands for.

    It may have wildcards of the shell, as usr/Makefile passes it to a shell.
    """
    import glob

    word = os.path.expanduser(word) if word.startswith("~") else word
    for folder in places:
        path = records.located(folder, word)
        if os.path.lexists(path):
            return [path]
        found = glob.glob(os.path.join(folder, word)) if re.search(r"[*?\[]", word) else []
        if found:
            return sorted({records.located(folder, path) for path in found})
    return []


def _take(
    named: Named,
    symbol: str,
    word: str,
    paths: list[str],
    places: list[str],
    obj: Path,
    stamps: Stamps,
) -> None:
    """Record the files that a word of a symbol stands for, or that there are none.

    Args:
        named: The result, which is changed.
        symbol: The symbol, without CONFIG_.
        word: The word.
        paths: The existing files.
        places: The folders in which they were searched.
        obj: The object folder.
        stamps: Digests of files.
    """
    states: dict[str, str] = {}
    for path in paths:
        record = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.cmd")
        own = _own(path, obj)
        if own and (os.path.exists(record) or own == GENERATED_KEY):
            named.made.append(os.path.join(obj, own))
        else:
            states.update(_states(path, stamps))
            if os.path.isfile(path):
                for listed in _of_list(path, os.path.realpath(obj)):
                    states[listed] = _listed_state(listed, stamps)
                    if not os.path.exists(listed) and symbol in _KNOWN:
                        named.missing.append(Missing(symbol, word, listed))
    if states:
        named.roots[f"{symbol} {word}"] = states
    if not paths and symbol in _KNOWN and word != GENERATED_KEY and not word.startswith("pkcs11:"):
        path = records.located(places[-1], word)
        named.roots[f"{symbol} {word}"] = {path: MISSING}
        named.missing.append(Missing(symbol, word, path))


def _own(path: str, obj: Path) -> str:
    """Return the name of a file in the object folder; "" for one of elsewhere."""
    for top in (os.path.abspath(obj), os.path.realpath(obj)):
        if path.startswith(f"{top}/"):
            return path[len(top) + 1 :]
    return ""


def _states(path: str, stamps: Stamps) -> Iterator[tuple[str, str]]:
    """Yield the state of a file, or of a folder and everything below it.

    The state of a file is its digest. The states below a folder have modes, owners and times, too,
    as usr/gen_initramfs.sh puts these into the archive.
    """
    if not os.path.isdir(path):
        yield path, stamps.digest(path)
        return
    yield path, _state(path, stamps) + (f" -> {os.readlink(path)}" if os.path.islink(path) else "")
    waiting = [path]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry.path, _state(entry.path, stamps)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def _state(path: str, stamps: Stamps) -> str:
    """Return type, mode, owner, mtime (seconds) and digest of a file in a folder, as a text."""
    try:
        info = os.lstat(path)
        who = f"{info.st_mode:o} {info.st_uid}:{info.st_gid}"
        if stat.S_ISREG(info.st_mode):
            return f"{who} {int(info.st_mtime)} {stamps.digest(path)}"
        if stat.S_ISLNK(info.st_mode):
            return f"{who} -> {os.readlink(path)}"
    except OSError:
        return MISSING
    return f"{who} {info.st_rdev}"


def _listed_state(path: str, stamps: Stamps) -> str:
    """Return the state of a file that a list names; usr/gen_init_cpio opens what a link leads to.

    A link's own state is part of it: one that leads elsewhere counts as changed.
    """
    state = _state(path, stamps)
    return f"{state}: {_state(os.path.realpath(path), stamps)}" if os.path.islink(path) else state


def _of_list(path: str, top: str) -> list[str]:
    """Return the files that a list for usr/gen_init_cpio names; it expands ${NAME}.

    Args:
        path: The list.
        top: The object folder's real path, where gen_init_cpio runs.
    """
    try:
        if os.path.getsize(path) > _LONGEST_LIST:
            return []
        data = Path(path).read_bytes()
    except OSError:
        return []
    if b"\0" in data:
        return []
    env = clean_env()
    words = [
        re.sub(r"\$\{(\w+)\}", lambda found: env.get(found[1], found[0]), os.fsdecode(word))
        for word in _LISTED.findall(data)
    ]
    return [records.located(top, word) for word in words if "${" not in word]


def _used(symbol: str, tree: Path, obj: Path) -> bool:
    """Tell whether the tree's makefiles or scripts use a symbol; see `forget` for the cache."""
    known: dict[str, bool] = decoded(obj / CACHE, dict[str, bool], {})
    if symbol not in known:
        known[symbol] = symbol in _mentioned(tree, {symbol})
        if obj.is_dir():
            with contextlib.suppress(OSError):
                write_whole(obj / CACHE, packed(known))
    return known[symbol]


def forget(obj: Path) -> None:
    """Remove the cache of used symbols, as the makefiles may have changed."""
    (obj / CACHE).unlink(missing_ok=True)


def _mentioned(tree: Path, symbols: Collection[str]) -> set[str]:
    """Return those of the symbols that the tree's makefiles or scripts have as CONFIG_NAME."""
    pattern = re.compile(rb"CONFIG_(%s)\b" % b"|".join(map(os.fsencode, sorted(symbols))))
    mentioned: set[str] = set()
    for where, folders, names in os.walk(tree):
        if where == os.fspath(tree):
            folders[:] = [
                name
                for name in folders
                if name not in ("Documentation", "tools") and not name.startswith(".")
            ]
        scripts = os.path.relpath(where, tree).split("/")[0] == "scripts" and "kconfig" not in where
        for name in names:
            if (
                name.startswith(("Makefile", "Kbuild"))
                or scripts
                and name.endswith((".sh", ".pl", ".py", ".include"))
            ):
                with contextlib.suppress(OSError), open(os.path.join(where, name), "rb") as stream:
                    mentioned.update(os.fsdecode(word) for word in pattern.findall(stream.read()))
    return mentioned
