"""Trials: what becomes of the kernel if its configuration is changed.

    a change (symbol to value) -> Trials.trial -> Row: sizes, memory, objects, built, booted, passed

`Trials` is the engine of all commands that try configurations. It prints nothing. A trial runs in a
slot (see slot.py), never in the user's own object folder. Its row is kept in the store under all
that it was made from, as soon as it is known: the same question costs nothing then, and a run that
was killed goes on with what is missing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from tasks import image, kernel, kernel_config, qemu, rootfs
from tasks.cache.store_files import Result
from tasks.config.layout import places
from tasks.config.project import Project
from tasks.fetch import series
from tasks.graph import journal, nested
from tasks.graph.stored import Stored, key_of
from tasks.system import process
from tasks.system.errors import PiggyError
from tasks.toolchains import record
from tasks.tuning import count as counts
from tasks.tuning import row as rows
from tasks.tuning.row import Row
from tasks.tuning.slot import Slot

FORMAT = 2  # of a row; part of its key
KIND = "trial"
_OPEN = 0.25  # seconds between two looks for a signal; see graph/runner.py
# Settings that decide nothing of a row, or whose effect is among the other parts of its key.
_IGNORED = {
    "build",
    "dl",
    "store",
    "store_size",
    "store_remote",
    "store_signers",
    "store_check",
    "store_push",
    "store_key",
    "mirror",
    "offline",
    "jobs",
    "menu",
    "fragments",
    "src",
    "window",
    "bridge",
    "bridge_address",
    "uplink",
    "machines",
    "kernel_src",
    "busybox_src",
}
_FAILED = "qemu_test failed: "
_BOOT = (qemu.test, rootfs.build_disk, rootfs.build_archive, rows.booted, rows.counted)
# Whose code decides the images. The slot's decides what is built in the name of a change.
_BUILD = (Slot.words, Slot.change, kernel_config.configure, kernel.build, image.build)


class Trials:
    """The engine: trials of changes to the configuration of a project.

    Use it as a context manager: its slots are locked for the body.

    Args:
        project: The project.
        slots: How many trials run at once.
        boot: Whether a kernel is booted and checked, where QEMU has the machine.
        count: Whether the instructions of its boot are counted, where that is exact.
        on_line: Called with each line that a run of doit says, from any thread.
    """

    def __init__(
        self,
        project: Project,
        *,
        slots: int = 1,
        boot: bool = True,
        count: bool = True,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.project, self._on_line = project, on_line
        machine = project.machine.qemu
        found = machine and shutil.which(machine.binary, path=process.clean_env()["PATH"])
        self.boot = boot and bool(found)
        self.uncounted = counts.why_not(project)
        self.count = self.boot and count and not self.uncounted
        self.slots = [Slot(project, number) for number in range(1, slots + 1)]
        self._digests: dict[str, str] = {}
        self._inputs: dict[str, Mapping[str, str]] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Trials:
        """Lock the slots, and bring up to date what a trial does not change.

        Raises:
            PiggyError: A compiler is missing, or a source can't be had, say.
        """
        with self._stack:
            for slot in self.slots:
                self._stack.enter_context(slot.lock.held())
                slot.prepare()
            first = self.slots[0]
            goals = ["toolchain", *(["busybox"] if self.project.machine.userspace else [])]
            if not self.project.settings.kernel_src:
                source = "_patch" if self.project.layout.kernel_patches else "_unpack"
                goals.append(f"{source}:{self.project.kernel_pin.name}")
            with self.project.jobs.token():
                status, lines = first.run({}, goals, self._on_line)
            if status:
                raise PiggyError(nested.first_error(lines, status), f"log: {first.log}")
            self.its = first.project({})
            self._keys = {False: self._parts(False)}
            if self.its.machine.qemu is not None:
                self._keys[True] = self._parts(True)
            self._stored = Stored(
                store=self.project.store,
                places=lambda: places(self.its.top, self.its.layout, record.folders(self.its)),
                relative=not self.its.layout.build.is_absolute(),
            )
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """Let the slots go."""
        self._stack.close()

    # what is known -------------------------------------------------------------------------------

    def known(self, change: Mapping[str, str]) -> Row | None:
        """Return the row of a change if it is known, without a trial."""
        for booted in (True,) if self.boot else (False, True):
            found = self.find("row", change, booted) if booted in self._keys else None
            if found is not None:
                with contextlib.suppress(msgspec.MsgspecError):
                    row = msgspec.json.decode(found, type=Row)
                    return None if self._countable(row) else row
        return None

    def _countable(self, row: Row) -> bool:
        """Tell whether the boot of a row is to be counted yet."""
        return bool(self.count and row.booted and row.instructions is None and not row.uncounted)

    def find(self, what: str, change: Mapping[str, str], booted: bool = False) -> bytes | None:
        """Return what was kept of a change; None if nothing was, or the kernel's sources changed.

        Args:
            what: What is kept: a word.
            change: Symbol to value.
            booted: Whether it holds for one root filesystem and one QEMU alone.
        """
        found = (
            self._stored.find(self._key_of(what, change, booted), self._digests_of)
            if self._stored
            else None
        )
        if found is None:
            return None
        with contextlib.suppress(ValueError, zlib.error, TypeError, LookupError):
            data = zlib.decompress(base64.urlsafe_b64decode(found[0].values["data"]))
            self._inputs[_named(change)] = self._digests_of(found[1])
            return data
        return None

    def keep(self, what: str, change: Mapping[str, str], data: bytes, booted: bool = False) -> None:
        """Keep something of a change whose row is known, under the same sources of the kernel.

        Args:
            what: What it is: a word.
            change: Symbol to value.
            data: The content.
            booted: Whether it holds for one root filesystem and one QEMU alone.
        """
        inputs = self._inputs.get(_named(change))
        if self._stored and inputs is not None:
            # In an alphabet without "/", so that it is not taken for a path.
            text = base64.urlsafe_b64encode(zlib.compress(data)).decode()
            result = Result(KIND, time.time(), {"data": text}, [])
            self._stored.put(self._key_of(what, change, booted), inputs, result, [])

    def _key_of(self, what: str, change: Mapping[str, str], booted: bool) -> str:
        return key_of(KIND, self._keys[booted], what, _named(change))

    def _digests_of(self, names: Iterable[str]) -> dict[str, str]:
        """Return digests of files; what was looked at once is taken for granted."""
        digest = self.project.stamps.digest
        found = {}
        for name in names:
            if name not in self._digests:
                self._digests[name] = digest(name)
            found[name] = self._digests[name]
        return found

    def _parts(self, booted: bool) -> str:
        """Return all that a row is made from but the change and the kernel's sources.

        Args:
            booted: Whether it has a boot's verdict.
        """
        its, code = self.its, self.project.codes.of
        digest, path = its.stamps.digest, process.clean_env()["PATH"]
        settings = {
            field: getattr(its.settings, field)
            for field in its.settings.__struct_fields__
            if field not in _IGNORED
        }
        requests = kernel_config.tree(its).asked().requests
        parts: list[Any] = [
            FORMAT,
            msgspec.json.encode(its.machine, order="sorted").decode(),
            msgspec.json.encode(its.chain).decode(),
            msgspec.to_builtins(settings),
            [(name, request.value) for name, request in requests.items()],
            record.read(its).id,
            [digest(one) for one in kernel_config.source_files(its)],
            its.layout.kernel_place if its.settings.kernel_src else "",
            kernel.version_files(its),
            [digest(one) for one in series.files(its.layout.kernel_patches)],
            _build_codes(self.project),
            [its.stamps.program(name, path) for name in self._programs()],
        ]
        if booted or its.machine.kernel.initramfs:  # which has the root filesystem in its images
            user = [its.layout.images / "busybox", its.layout.device_table, rootfs.MODES]
            parts += [
                record.read_user(its).id,
                [digest(one) for one in user],
                [rootfs.listing(its, folder, 1 << 40)() for folder in its.overlays],
                code(rootfs.build_archive),
            ]
        if booted and its.machine.qemu is not None:
            parts += [
                [code(one) for one in _BOOT],
                its.stamps.program(its.machine.qemu.binary, path),
            ]
        return json.dumps(parts)

    def _programs(self) -> list[str]:
        """Return the host's programs that decide the images, a compressor for one."""
        links = [name for link in self.its.chain.values() for name in link.tools]
        return [*kernel.TOOLS, *kernel_config.ASKED, *image.COMPRESSORS, *links]

    # trials --------------------------------------------------------------------------------------

    def trial(self, change: Mapping[str, str]) -> Row:
        """Return the row of a change, known or made now."""
        found = self.known(change)
        return found or next(iter(self.run([change])))

    def run(self, changes: Iterable[Mapping[str, str]]) -> Iterator[Row]:
        """Make trials, several at once, and yield each row as soon as it is known and kept.

        Args:
            changes: The changes, in the order in which they are begun.
        """
        waiting = deque(changes)
        done: SimpleQueue[tuple[Row, dict[str, str]] | BaseException] = SimpleQueue()
        count = len(waiting)

        def work(slot: Slot) -> None:
            try:
                # Held from the first trial to the last one: make in another slot takes whatever
                # is given back, and a boot would wait until it has compiled all.
                with self.project.jobs.token():
                    while (change := _taken(waiting)) is not None:
                        done.put(self._try(slot, change))
            except BaseException as error:
                done.put(error)

        threads = [
            threading.Thread(target=work, args=[slot], daemon=True)
            for slot in self.slots[: len(waiting)]
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in range(count):
                found = _next(done)
                if isinstance(found, BaseException):
                    raise found
                row, inputs = found
                if row.built:  # else it is tried again: what its errors depend on is not known
                    booted = row.passed is not None
                    self._inputs[_named(row.change)] = inputs
                    self.keep("row", row.change, msgspec.json.encode(row), booted)
                yield row
        finally:
            waiting.clear()
            process.stop_all(lambda: any(thread.is_alive() for thread in threads))

    def _try(self, slot: Slot, change: Mapping[str, str]) -> tuple[Row, dict[str, str]]:
        """Make one trial; return its row, and the kernel's sources with their digests."""
        started = time.monotonic()
        its = slot.project(change)
        its.layout.boot_record.unlink(missing_ok=True)
        status, lines = slot.run(
            change, [its.image, *(["qemu_test"] if self.boot else [])], self._on_line
        )
        known = journal.records(its.layout.journal)
        bare = Row(change=dict(change), seconds=time.monotonic() - started)
        error = nested.first_error(lines, status) if status else ""
        if error and not (self.boot and error.startswith(_FAILED)):
            return msgspec.structs.replace(bare, error=error), {}
        row = rows.measured(its, bare)
        if self.boot:
            row = rows.booted(its, row, error.removeprefix(_FAILED))
            if not row.passed:  # once more: on a busy host a boot or a check fails, too
                status, lines = slot.run(change, ["qemu_test"], self._on_line)
                error = nested.first_error(lines, status) if status else ""
                if error and not error.startswith(_FAILED):  # it says nothing of the kernel
                    return msgspec.structs.replace(bare, error=error), {}
                row = rows.booted(its, row, error.removeprefix(_FAILED))
            if self._countable(row):
                row = rows.counted(its, row)
        row = msgspec.structs.replace(row, seconds=time.monotonic() - started)
        return row, rows.sources(its, known)


def _build_codes(project: Project) -> list[str]:
    """Return digests of the code that decides what a trial builds, and how that is measured."""
    return [project.codes.of(one) for one in (*_BUILD, rows.measured)]


def _named(change: Mapping[str, str]) -> str:
    return json.dumps(list(change.items()))


def _taken(waiting: deque[Mapping[str, str]]) -> Mapping[str, str] | None:
    """Return the next change; None if another thread took the last one."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _next(done: SimpleQueue) -> Any:
    """Return the next result; a signal is heard meanwhile (see graph/runner.py)."""
    while True:
        try:
            return done.get(timeout=_OPEN)
        except Empty:
            continue
