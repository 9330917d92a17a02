"""The object folder (O=): one way in for every make that builds in it.

Make judges by times alone, and takes a file for good that was cut short, edited, or made from
something else. `ObjectFolder.make` has make judge rightly: what make would wrongly take for good
is removed first, and how make leaves the folder is written down for the next time.

The files kept in the folder beside Kbuild's own, and who reads and writes them:

    piggyback.tree      the tree and the tools that the folder is for        kbuild/configure.py
    piggyback.running   make is at work, or was killed at work               kbuild/make.py
    piggyback.made      time and size of every file as make left it          kbuild/manifest.py
    piggyback.symbols   symbols' values, and times of include/config/*       kbuild/symbol_times.py
    piggyback.ledger    content of what the objects were made from           kbuild/ledger.py
    piggyback.clock     when the last make ended                             kbuild/ledger.py
    piggyback.deps      the .cmd files, parsed                               kbuild/depfiles.py
    piggyback.trace     prerequisites and environment, as make said them     kbuild/trace.py
    piggyback.said/     the same while make runs                             kbuild/trace.py
    piggyback.named     files that symbols name                              kbuild/named_files.py
    piggyback.present   the folder has the state of images/vmlinux           here
    piggyback.LINK      Kbuild's name of a link's file                       tasks/image.py
    piggyback.{base,config,kept,mini}  Kconfig at work                       kbuild/configure.py
    piggyback.kconfig   how make runs Kconfig, and what Kconfig was answered kbuild/conf.py
    piggyback.{conf,watch,answers,learned,ask}  the same at work             kbuild/conf.py

None of them is believed: one that is missing or damaged costs time, never a wrong image.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from tasks.cache.digests import Stamps
from tasks.cache.store import Store
from tasks.config.project import EPOCH
from tasks.kbuild import ledger, make, manifest, objects, trace
from tasks.kbuild.objects import Objects
from tasks.system import terminal
from tasks.system.jobserver import Budget

PRESENT = "piggyback.present"


class ObjectFolder(msgspec.Struct, frozen=True):
    """An object folder, and what each make in it is called with.

    Attributes:
        tree: The source tree.
        path: The folder.
        variables: Make variables for the command line.
        jobs: The budget of jobs that make shares.
        stamps: Digests of files.
        log: Where the output of make goes.
        store: Where objects are kept, and taken from; None: nowhere.
        tools: The identity of compiler and binutils, by content.
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
        """Remove what a killed make left half-made, and every file that is not as make left it.

        Returns:
            What the folder has lost so, relative to it, and what is gone by itself.
        """
        make.repair(self.path)
        return manifest.purge(self.path)

    def restore(
        self, outputs: Mapping[str, Path], *, spoilt: bool = False, also: Iterable[str] = ()
    ) -> None:
        """Remove Kbuild's own copy of each output that is not the one kept in images/.

        It may have been truncated, or replaced by hand, or the kept one was. Make then makes it
        again, where it would take it for good by its time.

        Args:
            outputs: By Kbuild's name, relative to the folder, the copy that was kept.
            spoilt: The kept ones are not what they were, so that none of Kbuild's is believed.
            also: Names of what one command makes together with these: if one goes, all of them do.
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
    ) -> int:
        """Have make bring goals up to date, after `purge` and `restore`.

        Before it, objects that were made from other content than their sources have now are removed
        where make can't tell; after it, the folder's state is written down.

        Args:
            goals: What to ask make for.
            said: The name under which make's word on prerequisites is kept (see kbuild/trace.py);
                "" does not listen.
            named: The state of what symbols name (see named_files.Named.digests); None: as it was.
            apart: Each goal is asked for by a make of its own.
            prepares: Make may be asked to bring generated headers up to date first.
            variables: Make variables besides the folder's.
            env: Environment variables besides those that pin the build.
            label: What the progress bar is called; "" shows none.
            expected: How many commands are expected; 0: not known.

        Returns:
            How many commands make printed.

        Raises:
            CommandError: Make failed; the compiler's own errors come first.
        """
        kept = self._objects()
        complete = said in trace.read(self.path).goals
        listening = (
            trace.listening(self.path, said, self.stamps)
            if said
            else contextlib.nullcontext(dict[str, str]())
        )
        with ledger.kept(self.path, self.tree, self.stamps, named):
            with listening as more:
                rules = [given["MAKEFILES"] for given in (env or {}, more) if "MAKEFILES" in given]
                told = {**(env or {}), **more, **({"MAKEFILES": " ".join(rules)} if rules else {})}
                if kept:
                    prepare = partial(self.ask, ["prepare", trace.GOAL], env=told)
                    kept.lay(said, complete, prepare if prepares else None)
                started = time.time_ns()
                count = sum(
                    self.ask(part, variables=variables, env=told, label=label, expected=expected)
                    for part in ([[goal] for goal in goals] if apart else [goals])
                )
            if kept:
                kept.keep(said, started)
                if everything := len(kept.laid) + len(kept.compiled):
                    terminal.line(
                        "objects",
                        f"{len(kept.laid):,} of {everything:,} from the store,"
                        f" {len(kept.compiled):,} compiled",
                    )
        return count

    def _objects(self) -> Objects | None:
        """The object store, where it can be used for this configuration."""
        if self.store is None or not self.store.limit:
            return None
        if why := objects.usable(self.path, self.tree):
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
        """Run make for goals that change nothing of which the folder's records tell.

        For the arguments, the result and the error, see `make`.
        """
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
        """Whether the folder has the state of images/vmlinux, and not an earlier or later one."""
        return (self.path / PRESENT).exists()

    def set_present(self, present: bool) -> None:
        """Write down whether the folder has the state of images/vmlinux."""
        if present:
            (self.path / PRESENT).touch()
        else:
            (self.path / PRESENT).unlink(missing_ok=True)
