"""Why a task runs, as data.

Inputs yield reasons, actions and reports look at their fields, and the history keeps them. They
become text where they are printed, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tasks.cache.digests import MISSING

Record = dict[str, dict[str, str]]  # by part and name, a value or a digest
UNREADABLE = "can't be read"  # the value of what could not be looked at; the error may follow
SHOWN = 80  # characters up to which two values are printed, and not only that they differ
_SYMBOL = "CONFIG_"
_WORDS = {
    "settings": "setting",
    "code": "code of",
    "tools": "tool",
    "files": "file",
    "outputs": "output",
}
_SENTENCES = {
    "never": "not built yet",
    "unfinished": "its last run did not end well",
    "store": "it was brought back, and now what it leaves behind is needed, too",
}


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """One difference between a task's last success and now.

    Attributes:
        part: What differs: a part of the record (settings, code, tools, files, trees, discovered,
            outputs); "never", "unfinished" or "store", where there is nothing to compare; "note"
            for what the task itself says of its inputs, such as a symbol that changed; "text" for a
            sentence that an older history holds.
        name: The setting, file, tool, or symbol (as CONFIG_NAME); the sentence of a "text", or of a
            note without values, as an older history has them.
        before: Its value or digest in the record: None if it was not there, MISSING if it was a
            file that was not there.
        after: Its value or digest now, likewise; UNREADABLE and the error, if it could not be
            looked at.
        where: The file and line that a note's value comes from, if any.
    """

    part: str
    name: str = ""
    before: str | None = None
    after: str | None = None
    where: str = ""

    @property
    def changed(self) -> bool:
        """Whether it was there, is there, and is another one."""
        return bool(self.before and self.after)

    @property
    def symbol(self) -> str:
        """The configuration symbol that differs, without CONFIG_; "" for anything else."""
        told = self.part == "note" and not self._sentence_only
        if (told or self.part == "discovered") and self.name.startswith(_SYMBOL):
            return self.name.removeprefix(_SYMBOL)
        return ""

    @property
    def _sentence_only(self) -> bool:
        return self.before is None and self.after is None

    @property
    def file(self) -> str:
        """The path of the input file that differs, declared or discovered; "" for anything else."""
        return self.name if self.part in ("files", "discovered") and not self.symbol else ""

    @property
    def brief(self) -> str:
        """The sentence as short as it goes: a file needs no word for what it is."""
        return self._sentence("") if self.part == "files" else str(self)

    def __str__(self) -> str:
        """Return the sentence that it is in print."""
        if self.part == "text" or self.part == "note" and self._sentence_only:
            return self.name
        if self.part == "note":
            before, after = (
                "not asked for" if value is None else value for value in (self.before, self.after)
            )
            return f"{self.name} {before} -> {after}{f' ({self.where})' if self.where else ''}"
        return _SENTENCES.get(self.part) or self._sentence(_WORDS.get(self.part, ""))

    def _sentence(self, word: str) -> str:
        what, before, after = f"{word} {self.name}".strip(), self.before, self.after
        if (after or "").startswith(UNREADABLE):
            return f"{what} {after}".strip()
        if self.name.endswith("/") and self.changed:
            return f"other headers or makefiles are in {self.name}"
        if self.name.endswith("/*") and self.changed:
            return f"other files are in {self.name[:-1]}"
        if (
            (self.part == "settings" or self.symbol)
            and before is not None
            and after is not None
            and len(before) + len(after) < SHOWN
        ):
            return f"{what} {before or '(empty)'} -> {after or '(empty)'}"
        if before in (None, MISSING):
            return f"{what} is new"
        if after in (None, MISSING):
            return f"{what} is gone"
        return f"{what} changed"


NEVER = Reason("never")


def unread(states: Mapping[str, str]) -> list[str]:
    """Return the names of what could not be looked at."""
    return [name for name, state in states.items() if state.startswith(UNREADABLE)]


def compare(old: Record, now: Record) -> list[Reason]:
    """Return how the state `now` differs from the record `old`, and what can't be looked at.

    Args:
        old: The record of the last success, empty for none.
        now: The state.

    Returns:
        The reasons in the order of the parts, a file before its folder; empty where nothing
        differs.
    """
    if not old:
        return [NEVER]
    reasons = []
    for part, mine in now.items():
        theirs = old.get(part, {})
        lost = (
            unread(mine)
            if part == "trees" or part == "discovered" and UNREADABLE in mine.values()
            else ()
        )
        if mine == theirs and not lost:
            continue
        names = [*theirs, *(name for name in mine if name not in theirs)]
        for name in sorted(
            names, key=lambda name: name.endswith("/")
        ):  # a file says more than its folder
            before, after = theirs.get(name), mine.get(name)
            if before != after or name in lost:
                reasons.append(Reason(part, name.strip(), before, after))
    return reasons
