"""What each symbol costs: switch it, build, measure, boot, compare.

the configuration in force -> price SYMBOL... -> trials (tuning/trial.py) -> table

    price PRINTK HWMON      what these cost, and whether the kernel boots and passes without them
    price --all             all that is on and can be switched off
    price --no-boot --json  without a boot; everything as JSON

A symbol that is on is switched off, one that is off on. What it costs is the size with it less the
size without it. Nothing of the user's own build is touched, and what was tried once is not tried
again: the rows are in the store.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tasks import kernel_config
from tasks.config.project import Project
from tasks.graph.task import Command, Job, TaskDict, task
from tasks.kbuild import configure
from tasks.kconfig import switches
from tasks.kconfig.fragments import PREFIX
from tasks.kconfig.switches import Switches
from tasks.reports import options as options_of
from tasks.reports import price_text
from tasks.reports.price_text import SORTS, Priced
from tasks.system import terminal
from tasks.system.errors import PiggyError, nearest
from tasks.tuning.pace import Pace
from tasks.tuning.row import Row
from tasks.tuning.trial import Trials

SLOTS = 4  # trials at once for each processor, at most
Say = Callable[[str, str], None]


class Asked(msgspec.Struct, frozen=True):
    """The options.

    Attributes:
        everything: Whether each symbol is priced that is on and can be switched off.
        boot: Whether kernels are booted and checked.
        count: Whether the instructions of a boot are counted.
        slots: How many trials run at once.
        sort: What the table is sorted by; see price_text.SORTS.
        again: Whether to try what is known, too.
        as_json: Whether to print JSON.
    """

    everything: bool = False
    boot: bool = True
    count: bool = True
    slots: int = 1
    sort: str = "bytes"
    again: bool = False
    as_json: bool = False


_HELP = {
    "everything": "price all symbols that are on and can be switched off",
    "boot": "boot each kernel and run the checks of qemu_test",
    "count": "boot once more, and count the instructions up to the shell's answer",
    "slots": "how many trials run at once, each in a slot of its own",
    "sort": f"sort by {', '.join(SORTS)}",
    "again": "try what is known, too",
    "as_json": "everything as JSON",
}
PARAMS = options_of.described(
    Asked,
    _HELP,
    {
        "everything": {"long": "all"},
        "boot": {"inverse": "no-boot"},
        "count": {"inverse": "no-count"},
        "slots": {"short": "n"},
        "as_json": {"long": "json"},
    },
)


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `price`."""
    yield task(
        project,
        "price",
        "say what symbols cost, and whether it boots without them: price SYMBOL... or --all",
        price,
        command=Command(names=True, reads=True, params=PARAMS, check=check),
    )


def check(names: Sequence[str] = (), **options: Any) -> None:
    """Check the options, wherever they stand.

    Raises:
        PiggyError: An option is none, or nothing is asked.
    """
    _asked(names, options)


def price(job: Job, names: Sequence[str] = (), **options: Any) -> None:
    """Print the table.

    Args:
        job: The task's job.
        names: Symbols, with CONFIG_ or without; and options after them.
        options: As PARAMS has them.

    Raises:
        PiggyError: A word is no symbol, the kernel as it is can't be built, or a symbol that was
            named can't be switched.
    """
    project = job.project
    names, asked = _asked(names, options)
    project.lock.release()  # the user's own builds go on meanwhile
    with Trials(project, slots=asked.slots, boot=asked.boot, count=asked.count) as trials:
        say: Say = _silent if asked.as_json else terminal.line
        if asked.boot and not trials.boot:
            say("note", "there is no QEMU for this machine here: nothing is booted")
        why = trials.uncounted if asked.count and trials.boot else ""
        base = _base(trials, say, names)
        found = _switches(trials, base)
        if asked.everything:
            names = [name for name, value in found.to.items() if value == "n"]
        fixed = _fixed(trials, base, found, [name for name in names if name not in found.to])
        changes = [{name: found.to[name]} for name in names if name in found.to]
        known = {
            name: row
            for change in changes
            for name in change
            if not asked.again and (row := trials.known(change))
        }
        todo = [change for change in changes if known.keys().isdisjoint(change)]
        priced = [Priced(name, row, base, known=True) for name, row in known.items()]
        priced += _tried(trials, base, todo, say)
    priced = price_text.ordered(priced, asked.sort)
    if asked.everything:
        fixed |= {name: why for name, why in found.fixed.items() if name in found.choosable}
    if asked.as_json:
        print(json.dumps({**price_text.as_json(project, base, priced, fixed), "uncounted": why}))
    else:
        others = len(found.fixed) - len(fixed) if asked.everything else 0
        print("\n".join(price_text.table(base, priced, fixed, others, why)))
    if fixed and not asked.everything:
        raise PiggyError(
            f"{len(fixed)} of {len(names)} symbols can't be switched: "
            + ", ".join(PREFIX + name for name in fixed),
            "the reasons stand in the table",
        )


def _silent(word: str, text: str) -> None:
    """Say nothing: standard output is for JSON alone."""


def _asked(names: Sequence[str], options: Mapping[str, Any]) -> tuple[list[str], Asked]:
    """Return the symbols, each once and without CONFIG_, and the options.

    Raises:
        PiggyError: An option is none, or nothing is asked.
    """
    words, more = options_of.split("price", names, PARAMS)
    asked = Asked(**{**options, **more})
    most = SLOTS * len(os.sched_getaffinity(0))
    if not 1 <= asked.slots <= most:
        raise PiggyError(
            f"doit price: -n {asked.slots}: from 1 to {most} trials run at once here",
            "each takes as much room as a build, and they share the processors",
        )
    if asked.sort not in SORTS:
        raise PiggyError(
            f"doit price: there is no '--sort={asked.sort}'.{nearest(asked.sort, SORTS)}",
            f"it takes {', '.join(SORTS)}",
        )
    found = list(dict.fromkeys(word.removeprefix(PREFIX) for word in words))
    if bool(found) == asked.everything:
        raise PiggyError(
            "doit price: name symbols, or say --all"
            if not found
            else "doit price: --all, or the names of symbols, not both",
            "doit price PRINTK HWMON; doit price --all",
        )
    return found, asked


def _base(trials: Trials, say: Say, names: Sequence[str]) -> Row:
    """Return the row of the configuration in force.

    Args:
        trials: The engine.
        say: Says something.
        names: The symbols that were named, which are looked up before anything is built for them.

    Raises:
        PiggyError: It can't be built, or a name is no symbol.
    """
    base = trials.known({})
    if base is None:
        if names:
            _spelled(trials, names)
        say("price", "first the kernel as it is, in a slot of its own")
        base = trials.trial({})
    if not base.built:
        raise PiggyError(
            f"the kernel as it is can't be built: {base.error}", f"log: {trials.slots[0].log}"
        )
    if base.passed is False:
        say("note", f"the kernel as it is does not pass: {base.said}")
    return base


def _spelled(trials: Trials, names: Sequence[str]) -> None:
    """Check that names are symbols, where the tree's Kconfig files can be read.

    Raises:
        PiggyError: One is none.
    """
    try:
        known = switches.names(_model(trials))
    except (PiggyError, OSError):  # the build, or _switches, has the whole error
        return
    for name in names:
        if name not in known:
            raise _unknown(name, known)


def _unknown(name: str, known: Sequence[str]) -> PiggyError:
    return PiggyError(
        f"there is no symbol '{PREFIX}{name}' in this kernel.{nearest(name, known)}",
        "'doit menuconfig' shows them; '/' searches there",
    )


def _switches(trials: Trials, base: Row) -> Switches:
    """Return what can be switched: known, or by the tree's Kconfig files, which takes seconds.

    Raises:
        PiggyError: These can't be read.
    """
    what = f"switches {trials.project.codes.of(switches.find)}"
    known = trials.find(what, {})
    if known is not None:
        try:
            return msgspec.json.decode(known, type=Switches)
        except msgspec.MsgspecError:
            pass
    found = switches.find(_model(trials), base.config)
    trials.keep(what, {}, msgspec.json.encode(found))
    return found


def _model(trials: Trials) -> Any:
    """Return the model of the tree; the slot's object folder may not be there, and is not made."""
    return configure.model_aside(kernel_config.tree(trials.its))


def _fixed(trials: Trials, base: Row, found: Switches, names: Sequence[str]) -> dict[str, str]:
    """Return why symbols can't be switched.

    Raises:
        PiggyError: A name is no symbol.
    """
    reasons = {name: found.fixed[name] for name in names if name in found.fixed}
    others = [name for name in names if name not in reasons]
    if not others:
        return reasons
    kconf = _model(trials)
    root = kernel_config.tree(trials.its).source
    for name in others:
        reasons[name] = switches.why_not(kconf, base.config, name, root)
        if not reasons[name]:
            raise _unknown(name, switches.names(kconf))
    return {name: reasons[name] for name in names}


@contextlib.contextmanager
def _bar(total: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """Yield the function that advances a bar, which is not shown where it would go to stdout."""
    if quiet and not sys.stderr.isatty():
        yield lambda: None
        return
    with terminal.bar("price", total, "trials") as bar:
        yield bar.step


def _tried(
    trials: Trials, base: Row, todo: Sequence[Mapping[str, str]], say: Say
) -> Iterator[Priced]:
    """Try changes, with a bar, and yield their prices."""
    if not todo:
        return
    its, layout = trials.its, trials.project.layout
    pace = Pace(
        trials.project,
        [(its.layout.kernel_obj, its.layout.kernel_src), (layout.kernel_obj, layout.kernel_src)],
    )
    took = terminal.took(pace.estimate(todo, len(trials.slots)))
    say("price", f"{len(todo)} to try, about {took}; Ctrl-C keeps what is known by then")
    with _bar(len(todo), quiet=say is not terminal.line) as step:
        for row in trials.run(sorted(todo, key=pace.compiling)):
            (name,) = row.change
            pace.learn(row.change, row.seconds)
            one = Priced(name, row, base)
            say(name, f"{price_text.short(one)}  ({terminal.took(row.seconds)})")
            step()
            yield one
