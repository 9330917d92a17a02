"""The object folder (O=): the interface for each make that builds in it.

Make judges by times alone, and considers a file up to date that was truncated, edited, or made from
another source. `ObjectFolder.make` removes such files first, and records afterwards how make left
the folder.

The files that we keep in the folder beside Kbuild's own, and the modules that use them:

    piggyback.tree      the tree and the tools that the folder is for        kbuild/claim.py
    piggyback.running   make is at work, or was killed at work               kbuild/make.py
    piggyback.boot      during which run of the host the folder was written  kbuild/claim.py
    piggyback.made      time and size of every file as make left it          kbuild/manifest.py
    piggyback.symbols   symbols' values, and times of include/config/*       kbuild/symbol_times.py
    piggyback.ledger    content of what the objects were made from           kbuild/ledger.py
    piggyback.clock     when the last make ended                             kbuild/manifest.py
    piggyback.records   the .cmd files, parsed                               kbuild/depfiles.py
    piggyback.texts     what sources say, and no .cmd file                   kbuild/texts.py
    piggyback.placed    a command tells where the folders lie                kbuild/depfiles.py
    piggyback.trace     prerequisites and environment, printed by make       kbuild/trace.py
    piggyback.said/     the same while make runs                             kbuild/trace.py
    piggyback.state/    the inputs of each goal when it was made last        kbuild/goal_state.py
    piggyback.seconds   how long the compilation of each object took         kbuild/seconds.py
    piggyback.laid      objects that make may turn out not to want           kbuild/objects.py
    piggyback.left      a make began whose objects are not in the store yet  kbuild/left.py
    piggyback.early/    what was begun before it was certain                 shortway/early.py
    piggyback.named     files that symbols name                              kbuild/named_files.py
    piggyback.present   the folder has the state of images/vmlinux           here
    piggyback.LINK      Kbuild's name of a link's file                       tasks/image.py
    piggyback.{base,config,kept,mini}  Kconfig at work                       kbuild/configure.py
    piggyback.kconfig   how make runs Kconfig, and what Kconfig was answered kbuild/conf.py
    piggyback.{conf,watch,answers,learned,ask}  the same at work             kbuild/conf.py

None of them is trusted: a missing or damaged one costs time, and never leads to a wrong image.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from tasks.cache.digests import Stamps
from tasks.cache.store import Store
from tasks.config.project import EPOCH
from tasks.graph.history import Work
from tasks.kbuild import (
    goal_state,
    ledger,
    left,
    make,
    manifest,
    object_rules,
    objects,
    seconds,
    trace,
)
from tasks.kbuild.objects import Objects
from tasks.system.jobserver import Budget
from tasks.system.process import CommandError

PRESENT = "piggyback.present"


class ObjectFolder(msgspec.Struct, frozen=True):
    """An object folder, and the arguments of each make in it.

    Attributes:
        tree: The source tree.
        path: The folder.
        variables: Make variables for the command line.
        jobs: The jobserver.
        stamps: Digests of files.
        log: The file for make's output.
        store: The store of compiled objects; None for none.
        tools: A digest of compiler and binutils.
    """

    tree: Path
    path: Path
    variables: Mapping[str, str]
    jobs: Budget
    stamps: Stamps
    log: Path
    store: Store | None = None
    tools: str = ""

    def purge(self) -> list[str]:
        """Remove incomplete files of a killed make, and files that differ from the manifest.

        Returns:
            The files that differ or are missing, relative to the folder.
        """
        make.repair(self.path)
        return manifest.purge(self.path)

    def restore(
        self, outputs: Mapping[str, Path], *, spoilt: bool = False, also: Iterable[str] = ()
    ) -> None:
        """Remove each output in the folder that differs from its copy in images/.

        Either may have been truncated or replaced by hand. Make would consider the output up to
        date by its time.

        Args:
            outputs: Kbuild's name, relative to the folder, to the copy in images/.
            spoilt: Whether the copies were changed, so that all outputs must be removed.
            also: Further outputs of the same command: if one is removed, all are.
        """
        gone = {
            name
            for name, image in outputs.items()
            if spoilt
            or not image.exists()
            or self.stamps.digest(self.path / name) != self.stamps.digest(image)
        }
        if gone and also:
            gone = {*outputs, *also}
        for name in gone:
            (self.path / name).unlink(missing_ok=True)

    def make(
        self,
        goals: Sequence[str],
        *,
        said: str = "",
        named: Mapping[str, str] | None = None,
        apart: bool = False,
        prepares: bool = False,
        variables: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        label: str = "",
        expected: int = 0,
        ready: Callable[[], object] = lambda: None,
    ) -> int:
        """Run make for goals that change the folder, after `purge` and `restore`.

        Before make, objects whose sources changed unnoticed by make are removed; after it, the
        folder's state is recorded.

        Args:
            goals: The goals.
            said: The name under which the trace of prerequisites is kept (see kbuild/trace.py); ""
                for no trace, and no objects from the store.
            named: The state of files that symbols name (see named_files.Named.digests); None:
                unchanged.
            apart: Whether to run make once for each goal.
            prepares: Whether `make prepare` may run first, for the generated headers.
            variables: Make variables besides the folder's.
            env: Environment variables besides those of a reproducible build.
            label: The progress bar's label; "" for no bar.
            expected: The expected number of commands; 0 if that is not known.
            ready: Called when these objects are gone, before make runs. It puts files in place for
                which the goals have no rule: one of them may have been removed.

        Returns:
            How many commands make printed.

        Raises:
            CommandError: Make failed; the compiler's errors come first in the message.
        """
        if said:
            goal_state.forget(self.path, said)
            goal_state.forget_others(self.path, said, self._edges())
        object_store = self.objects() if said else None
        took: dict[str, float] = {}
        traces = trace.read(self.path)
        complete = object_store is not None and said in traces.goals
        if object_store:
            object_store.told_by(traces)
        listening = (
            trace.listening(self.path, said, self.stamps)
            if said
            else contextlib.nullcontext(dict[str, str]())
        )
        with ledger.kept(self.path, self.tree, self.stamps, named):
            ready()
            with listening as more:
                rules = [given["MAKEFILES"] for given in (env or {}, more) if "MAKEFILES" in given]
                environment = {
                    **(env or {}),
                    **more,
                    **({"MAKEFILES": " ".join(rules)} if rules else {}),
                }
                if object_store:
                    left.keep(object_store)
                    prepare = partial(self.ask, ["prepare", trace.GOAL], env=environment)
                    object_store.lay(said, complete, prepare if prepares else None)
                started = time.time_ns()
                with self._left(object_store, said, started):
                    count = sum(
                        self.ask(
                            part,
                            variables=variables,
                            env=environment,
                            label=label,
                            expected=expected,
                        )
                        for part in ([[goal] for goal in goals] if apart else [goals])
                    )
                if said:
                    took = seconds.measured(self.path, trace.begun(self.path))
            if said:
                goal_state.forget_others(self.path, said, self._edges())
            if object_store:
                object_store.keep(said, started, took=seconds.alone(took))
                left.end(self.path)
                object_store.report(said)
        if said:
            self._learn(took, object_store)
        return count

    @contextlib.contextmanager
    def _left(self, object_store: Objects | None, goal: str, started: int) -> Iterator[None]:
        """Keep what make compiles in the body of a `with` if it fails, or have the next one do it.

        Args:
            object_store: The interface to the store; None if it is not used.
            goal: The name of the goal's trace.
            started: When make begins, ns since 1970.
        """
        if object_store is None:
            left.end(self.path)
            yield
            return
        left.begin(object_store, goal, started)
        try:
            yield
        except CommandError:
            left.keep(object_store)
            raise

    def _learn(self, took: Mapping[str, float], object_store: Objects | None) -> None:
        """Record how long a run took.

        Args:
            took: The seconds of each object that make compiled.
            object_store: The object store; None if it was not used.
        """
        copied = object_store.laid if object_store else {}
        work = Work(
            compiled=len(took),
            compiling=seconds.schedule(took.values(), self.jobs.size),
            copied=len(copied),
            copying=object_store.copying if object_store else 0.0,
        )
        seconds.learn(self.path, took, work, copied)

    def _edges(self) -> dict[str, dict[str, list[str]]]:
        """Return the edges of all goals' traces."""
        return {goal: said.edges for goal, said in trace.read(self.path).goals.items()}

    def objects(self) -> Objects | None:
        """Return the interface to the object store; None if this configuration can't use it."""
        if self.store is None or not self.store.limit:
            return None
        if why := object_rules.usable(self.path, self.tree):
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"# no objects from the store: {why}\n")
            return None
        return objects.Objects(
            self.tree,
            self.path,
            self.store,
            self.stamps,
            self.tools,
            self.variables.get("CROSS_COMPILE", ""),
            self.variables.get("ARCH", ""),
        )

    def ask(
        self,
        goals: Sequence[str],
        *,
        variables: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        label: str = "",
        expected: int = 0,
    ) -> int:
        """Run make for goals that change no recorded file; see `make` for the arguments."""
        return make.run(
            self.tree,
            self.path,
            goals,
            jobs=self.jobs,
            log=self.log,
            variables={**self.variables, **(variables or {})},
            env={**make.pins(EPOCH), **(env or {})},
            label=label,
            expected=expected,
        )

    @property
    def present(self) -> bool:
        """Whether the folder's state is that of images/vmlinux, not an earlier or later one."""
        return (self.path / PRESENT).exists()

    def set_present(self, present: bool) -> None:
        """Record whether the folder's state is that of images/vmlinux."""
        if present:
            (self.path / PRESENT).touch()
        else:
            (self.path / PRESENT).unlink(missing_ok=True)
