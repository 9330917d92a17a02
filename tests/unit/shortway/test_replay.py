from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.kbuild import trace
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.saved import Unfamiliar
from tasks.kbuild.trace import Said
from tasks.shortway.replay import Replay
from tasks.system.jobserver import Budget
from tasks.system.process import CommandError

FIXDEP = """#!/bin/sh
printf 'cmd_%s := %s\\n\\n' "$2" "$3"
printf 'source_%s := %s\\n\\ndeps_%s := \\\\\\n' "$2" "$(head -n 1 "$1")" "$2"
tail -n +2 "$1" | while read -r name; do printf '  %s \\\\\\n' "$name"; done
printf '\\n%s: $(deps_%s)\\n\\n$(deps_%s):\\n' "$2" "$2" "$2"
"""
ELF = "printf '\\177ELF'"
THIN = "!<thin>"


class Box:
    """An object folder with hand-made records:

    a.c, b.c, b.h -> a.o, b.o -> all.a (which names its members) -> whole.o -> prog
    """

    def __init__(self, top: Path) -> None:
        self.obj, self.src = top / "obj", top / "src"
        (self.obj / "scripts" / "basic").mkdir(parents=True)
        self.src.mkdir()
        fixdep = self.obj / "scripts" / "basic" / "fixdep"
        fixdep.write_text(FIXDEP)
        fixdep.chmod(0o755)
        self.edges: dict[str, list[str]] = {}
        for name in ("a.c", "b.c", "b.h"):
            (self.src / name).write_text(f"{name}\n")
        self.compile("a.o", "a.c")
        self.compile("b.o", "b.c", "b.h")
        self.add("all.a", f"{{ printf '{THIN}\\n'; ls a.o b.o; }} > all.a", "a.o", "b.o")
        self.add("whole.o", f"{{ {ELF}; cat $$(tail -n +2 all.a); }} > whole.o", "all.a")
        self.add(
            "prog",
            '{ echo linked by "$$LINKER"; cat whole.o; } > prog; wc -c < prog > prog.map',
            "whole.o",
        )
        self.build()

    def compile(self, target: str, source: str, *headers: str) -> None:
        """An object from a source and headers; what stands between /* and */ makes no
        difference."""
        names = " ".join(str(self.src / name) for name in (source, *headers))
        strip = r"sed 's|/\*.*\*/||'"
        command = (
            f"grep -n BROKEN {names} && exit 1; {{ {ELF}; cat {names} | {strip}; }} > {target};"
            f" printf '%s\\n' {names} > .{target}.d; : cc -nostdinc -c -o {target}"
            f" {self.src / source}"
        )
        lists = "".join(f"  {self.src / name} \\\n" for name in headers)
        self.record(
            target,
            command,
            f"\nsource_{target} := {self.src / source}\n\ndeps_{target} := \\\n{lists}\n"
            f"{target}: $(deps_{target})\n\n$(deps_{target}):\n",
        )
        self.edges[target] = []

    def add(self, target: str, command: str, *inputs: str) -> None:
        self.record(target, command)
        self.edges[target] = list(inputs)

    def record(self, target: str, command: str, lists: str = "") -> None:
        (self.obj / f".{target}.cmd").write_text(f"cmd_{target} := {command}\n{lists}")

    def build(self) -> None:
        """Make everything, oldest first, a minute ago."""
        for number, target in enumerate(self.edges):
            text = (self.obj / f".{target}.cmd").read_text().split("\n")[0].split(" := ", 1)[1]
            subprocess.run(
                ["sh", "-c", text.replace("$$", "$")],
                cwd=self.obj,
                check=True,
                env={**os.environ, "LINKER": "ld"},
            )
            when = time.time() - 60 + number
            for name in (target, f".{target}.cmd"):
                os.utime(self.obj / name, (when, when))
        for path in (*self.src.iterdir(), self.obj / "scripts" / "basic" / "fixdep"):
            os.utime(path, (1_700_000_000, 1_700_000_000))

    def edit(self, name: str, text: str) -> None:
        (self.src / name).write_text(text)

    def replay(
        self, goal: str = "prog", edges: dict[str, list[str]] | None = None, **more: dict[str, str]
    ) -> Replay:
        env = {"PATH": os.environ["PATH"], "LINKER": "ld", "HOSTCC": "hostcc"}
        said = Said(env, self.edges if edges is None else edges)
        return Replay(
            self.obj, goal, said, Depfiles(self.obj, self.src), Budget(2), self.obj / "log", **more
        )

    def run(self, **more: dict[str, str]) -> list[str]:
        """Replay, and return what got a new time; afterwards nothing is stale any more."""
        replay = self.replay(**more)
        replay.run()
        again = self.replay(**more)
        again.run()
        assert not again.made
        return list(replay.made)

    def content(self, name: str) -> str:
        return (self.obj / name).read_text(errors="replace")


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_nothing_is_stale(box: Box) -> None:
    assert box.run() == []


def test_an_edit_reaches_the_goal(box: Box) -> None:
    other = (box.obj / "b.o").stat().st_mtime_ns
    box.edit("a.c", "new code\n")
    replay = box.replay()
    replay.run()
    assert list(replay.made) == ["a.o", "all.a", "whole.o", "prog"]
    assert replay.changed == {"a.o", "all.a", "whole.o", "prog"}
    assert {"a.o", "prog"} <= replay.took.keys() <= replay.changed
    assert all(took > 0 for took in replay.took.values())
    assert "new code" in box.content("prog")
    assert box.content("prog").startswith("linked by ld")
    assert (box.obj / "b.o").stat().st_mtime_ns == other
    times = [
        (box.obj / name).stat().st_mtime_ns
        for name in ("a.o", ".a.o.cmd", "all.a", ".all.a.cmd", "whole.o", "prog")
    ]
    assert times == sorted(times)


def test_a_header_reaches_what_includes_it(box: Box) -> None:
    box.edit("b.h", "another\n")
    assert box.run() == ["b.o", "all.a", "whole.o", "prog"]
    assert "another" in box.content("prog")


def test_a_comment_ends_at_the_object(box: Box) -> None:
    names = ("all.a", "whole.o", "prog", "prog.map")
    before = {name: ((box.obj / name).stat().st_ino, box.content(name)) for name in names}
    box.edit("a.c", "a.c/* no code */\n")
    replay = box.replay()
    replay.run()
    assert list(replay.made) == ["a.o", "all.a", "whole.o", "prog"]
    assert replay.changed == set()
    assert {name: ((box.obj / name).stat().st_ino, box.content(name)) for name in before} == before


def test_the_same_bytes_of_a_list_are_no_reason_to_stop(box: Box) -> None:
    """all.a names its members and stays the same; what is made from it has to be made again."""
    before = box.content("all.a")
    box.edit("a.c", "A.C\n")
    box.run()
    assert box.content("all.a") == before
    assert "A.C" in box.content("prog")


def test_a_lost_target_is_made_again(box: Box) -> None:
    before = box.content("prog")
    (box.obj / "whole.o").unlink()
    assert box.run() == ["whole.o", "prog"]
    (box.obj / "prog").unlink()
    assert box.run() == ["prog"]
    assert box.content("prog") == before


def test_a_goal_that_was_stale_by_itself_is_made_and_not_only_touched(box: Box) -> None:
    """later.h comes out the same, but something else that the goal is made from is newer."""
    box.add("later.h", "wc -l < a.o > later.h", "a.o")
    box.add("image", "cat later.h prog > image", "later.h", "prog")
    box.build()
    (box.obj / "prog").write_text("by another task")
    os.utime(box.obj / "a.o")
    edges = {name: box.edges[name] for name in ("later.h", "image")}
    replay = box.replay("image", edges)
    replay.run()
    assert list(replay.made) == ["later.h", "image"]
    assert "by another task" in box.content("image")


def test_a_failure_takes_its_target_away(box: Box) -> None:
    box.edit("a.c", "BROKEN\n")
    with pytest.raises(Unfamiliar, match=r"the command of a\.o failed"):
        box.replay().run()
    assert not (box.obj / "a.o").exists()
    box.edit("a.c", "mended\n")
    assert box.run() == ["a.o", "all.a", "whole.o", "prog"]
    assert "mended" in box.content("prog")


def test_what_the_compiler_finds_wrong(box: Box) -> None:
    box.edit("a.c", "a.c:3: error: BROKEN\n")
    with pytest.raises(CommandError) as caught:
        box.replay().run()
    assert "error: BROKEN" in caught.value.message
    assert not (box.obj / "a.o").exists()
    box.edit("a.c", "a.c:3: error: BROKEN: No such file or directory\n")
    with pytest.raises(Unfamiliar):
        box.replay().run()


def test_a_check_that_fails(box: Box) -> None:
    check = box.src / "check"
    check.write_text("#!/bin/sh\n! grep -q FORBIDDEN $1\n")
    check.chmod(0o755)
    box.edit("a.c", "FORBIDDEN\n")
    with pytest.raises(Unfamiliar):
        box.replay(checks={".c": str(check)}).run()
    assert not (box.obj / "a.o").exists()
    box.edit("a.c", "allowed\n")
    assert "a.o" in box.run(checks={".c": str(check)})


def test_a_file_without_a_record(box: Box) -> None:
    """Make writes it by a rule of its own; if what it is made from changes, only make can say what
    becomes of it."""
    (box.obj / "offsets.h").write_text("x")
    os.utime(box.obj / "offsets.h", (1_700_000_000, 1_700_000_000))
    box.edges["offsets.h"] = ["a.o"]
    box.edges["b.o"] = ["offsets.h"]
    box.edit("a.c", "a.c/* the object stays the same */\n")
    assert box.run() == ["a.o", "all.a", "whole.o", "prog"]
    box.edit("a.c", "other\n")
    with pytest.raises(Unfamiliar, match=r"offsets\.h"):
        box.replay().run()


def test_a_source_that_is_gone(box: Box) -> None:
    (box.src / "b.h").unlink()
    with pytest.raises(Unfamiliar, match="is gone"):
        box.replay().run()


def test_a_program_of_the_build_itself(box: Box) -> None:
    box.record(
        "a.o",
        f"hostcc -o a.o {box.src / 'a.c'}",
        f"\nsource_a.o := {box.src / 'a.c'}\n\ndeps_a.o := \\\n\n"
        "a.o: $(deps_a.o)\n\n$(deps_a.o):\n",
    )
    box.edit("a.c", "x\n")
    with pytest.raises(Unfamiliar, match="that the build itself runs"):
        box.replay().run()


def test_nothing_runs_if_a_command_is_unfamiliar(box: Box) -> None:
    with (box.obj / ".b.o.cmd").open("a") as record:
        record.write("#SYMVER x 0x0\n")
    box.edit("a.c", "x\n")
    box.edit("b.c", "x\n")
    before = (box.obj / "a.o").read_bytes()
    with pytest.raises(Unfamiliar):
        box.replay().run()
    assert (box.obj / "a.o").read_bytes() == before


def test_a_command_that_does_not_make_its_target(box: Box) -> None:
    box.record("whole.o", "rm -f whole.o")
    box.edit("a.c", "x\n")
    with pytest.raises(Unfamiliar, match="did not make it"):
        box.replay().run()


def test_what_a_command_writes_beside_its_target_is_followed(box: Box) -> None:
    """As modpost writes .vmlinux.export.c: no prerequisite says so."""
    box.add("symvers", "cat whole.o > symvers; cat whole.o > export.c", "whole.o")
    box.add("export.o", f"{{ {ELF}; cat export.c; }} > export.o", "export.c")
    box.edges["prog"] = ["whole.o", "export.o"]
    box.build()
    os.utime(box.obj / "export.c", (1_700_000_000, 1_700_000_000))
    box.edit("a.c", "exported\n")
    made = box.run()
    assert made.index("symvers") < made.index("export.o") < made.index("prog")
    assert "exported" in box.content("export.o")


def test_targets_that_need_each_other(box: Box) -> None:
    box.edges["a.o"] = ["b.o"]
    box.edges["b.o"] = ["a.o"]
    box.edit("a.c", "x\n")
    with pytest.raises(Unfamiliar):
        box.replay().run()


def test_a_record_of_what_is_no_longer_built_is_left_alone(box: Box) -> None:
    (box.src / "old.c").write_text("x")
    box.compile("old.o", "old.c")
    del box.edges["old.o"]
    box.edit("a.c", "x\n")
    assert "old.o" not in box.run()


def test_many_at_once(box: Box) -> None:
    for number in range(40):
        (box.src / f"m{number}.c").write_text(f"m{number}\n")
        os.utime(box.src / f"m{number}.c", (1_700_000_000, 1_700_000_000))
        box.compile(f"m{number}.o", f"m{number}.c", "b.h")
    objects = [f"m{number}.o" for number in range(40)]
    box.add("many", f"cat {' '.join(objects)} > many", *objects)
    box.build()
    box.edit("b.h", "for all\n")
    replay = box.replay("many")
    replay.run()
    assert set(objects) <= set(replay.made)
    assert list(replay.made)[-1] == "many"
    assert box.content("many").count("for all") == 40


def test_the_log_has_what_was_run_and_said(box: Box) -> None:
    box.record("whole.o", "echo a warning; cp all.a whole.o")
    box.edit("a.c", "x\n")
    box.run()
    log = box.content("log")
    assert "$ echo a warning; cp all.a whole.o\na warning\n" in log


def test_the_record_of_a_target(tmp_path: Path) -> None:
    assert trace.record_of(tmp_path, "a/b.o") == f"{tmp_path}/a/.b.o.cmd"
    assert trace.record_of(tmp_path, "vmlinux") == f"{tmp_path}/.vmlinux.cmd"


def test_a_link_may_end_while_objects_are_about_to_be_kept(box: Box) -> None:
    replay: Any = box.replay()

    class Slow(float):
        """A duration; while it is looked at, a link ends in another thread."""

        def __le__(self, other: float) -> bool:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(replay.took.update, {"all.a": 1.0}).result()
            return float(self) <= other

    kept: list[Any] = []
    replay.took, replay.compiled = {"a.o": Slow(2.0)}, ["a.o"]
    replay.objects = SimpleNamespace(keep_made=lambda *given: kept.append(given))
    with replay._keeping():
        replay._keep()
    ((made, _, took),) = kept
    assert (made, list(took)) == (["a.o"], ["a.o"])
    assert "all.a" in replay.took
