from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from tasks.cache.digests import Stamps
from tasks.kbuild import seconds, trace
from tasks.system.process import clean_env

MAKEFILE = """\
export COLOUR := blue
export LC_ALL :=
unexport LC_ALL
export sub_make_done := 1
all: prog
	@:
deps_prog := dep.h
prog: a.o b.o gen.h dep.h | order FORCE
	@echo $^ > $@
	@echo 'cmd_prog := echo a.o b.o gen.h dep.h > prog' > .prog.cmd
a.o b.o: %.o: %.c FORCE
	@:
gen.h: a.o
	@test -e $@ || touch $@
inner: FORCE
	@$(MAKE) -C elsewhere
prog: inner
order dep.h FORCE: ;
"""


@pytest.fixture
def obj(tmp_path: Path) -> Path:
    folder = tmp_path / "obj"
    (folder / "elsewhere").mkdir(parents=True)
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "elsewhere" / "Makefile").write_text("prog: FORCE\n\t@:\nFORCE:\n")
    for name in ("a.c", "b.c", "a.o", "b.o", "dep.h", "elsewhere/prog"):
        (folder / name).write_text(name)
    return folder


def listened(obj: Path, *goals: str, stamps: Stamps) -> trace.Trace:
    """Run make on the folder and return what it said."""
    with trace.listening(obj, "goal", stamps) as more:
        subprocess.run(
            ["make", "-C", str(obj), "-j2", "--no-print-directory", *goals],
            check=True,
            env=clean_env({**more, "sub_make_done": "1"}),
        )
    return trace.read(obj)


@pytest.fixture
def stamps(tmp_path: Path) -> Stamps:
    return Stamps(tmp_path / "stamps")


def test_make_says_what_each_file_is_made_from(obj: Path, stamps: Stamps) -> None:
    known = listened(obj, "all", trace.GOAL, stamps=stamps)
    said = known.goals["goal"]
    assert said.edges["prog"] == [
        "a.o",
        "b.o",
        "gen.h",
    ]  # not what the saved dependencies say, no phony target, no order
    assert said.edges["a.o"] == ["a.c"]
    assert said.edges["gen.h"] == ["a.o"]
    assert "all" not in said.edges
    assert "inner" not in said.edges
    assert not (obj / "piggyback.said").exists()


def test_a_make_that_has_nothing_to_do_says_the_same(obj: Path, stamps: Stamps) -> None:
    first = listened(obj, "all", trace.GOAL, stamps=stamps)
    again = listened(obj, "all", trace.GOAL, stamps=stamps)
    assert {name: again.goals["goal"].edges[name] for name in ("a.o", "b.o")} == {
        name: first.goals["goal"].edges[name] for name in ("a.o", "b.o")
    }


def test_what_a_make_had_no_reason_to_look_at_is_known_from_before(
    obj: Path, stamps: Stamps
) -> None:
    """A target without FORCE is looked at when it is made."""
    with (obj / "Makefile").open("a") as stream:
        stream.write("prog: once.h gone.h\nonce.h gone.h: %.h: $(CURDIR)/../table\n\t@touch $@\n")
    table = obj.parent / "table"
    table.touch()
    edge = ("once.h", str(table))
    listened(obj, "all", stamps=stamps)
    for goals in (["all"], ["nothing-of-the-kind"], ["all"]):
        with contextlib.suppress(subprocess.CalledProcessError):
            listened(obj, *goals, stamps=stamps)
        assert edge in trace.prerequisites(obj)
        known = trace.read(obj).goals.values()
        assert not known or str(table) in trace.edges_of(known, earlier=True)["once.h"]
        assert "once.h" not in trace.edges_of(known)
    assert ("gone.h", str(table)) in trace.prerequisites(obj, "goal")
    listened(obj, "b.o", stamps=stamps)  # which is not made from them
    assert not trace.prerequisites(obj, "goal")


def test_the_environment_of_a_recipe(obj: Path, stamps: Stamps) -> None:
    env = listened(obj, "all", trace.GOAL, stamps=stamps).goals["goal"].env
    assert env["COLOUR"] == "blue"
    assert "LC_ALL" not in env
    assert "-j" not in env["MAKEFLAGS"]
    assert "jobserver" not in env["MAKEFLAGS"]
    assert not {"MAKEFILES", "PIGGYBACK_TRACE", "PIGGYBACK_TOP", "PATH", "HOME", "TZ"} & set(env)


def test_a_make_that_fails_is_not_listened_to(obj: Path, stamps: Stamps) -> None:
    listened(obj, "all", trace.GOAL, stamps=stamps)
    with pytest.raises(subprocess.CalledProcessError):
        listened(obj, "nothing-of-the-kind", stamps=stamps)
    assert trace.read(obj).goals == {}


def test_meddling_is_seen(obj: Path, stamps: Stamps) -> None:
    known = listened(obj, "all", trace.GOAL, stamps=stamps)
    record = obj / ".prog.cmd"
    assert not trace.meddled(obj, known, "prog", stamps)
    os.utime(record, (1_700_000_000, 1_700_000_000))  # made again, by the same command
    assert not trace.meddled(obj, known, "prog", stamps)
    record.write_text(record.read_text().replace("echo", "echo -n"))
    assert trace.meddled(obj, known, "prog", stamps)
    trace.learn(obj, known, "prog", stamps)
    assert not trace.meddled(obj, known, "prog", stamps)
    record.unlink()
    assert trace.meddled(obj, known, "prog", stamps)
    assert not trace.meddled(obj, known, "gen.h", stamps)  # it has no record: its content counts
    os.utime(obj / "gen.h")
    assert not trace.meddled(obj, known, "gen.h", stamps)
    (obj / "gen.h").write_text("by hand")
    assert trace.meddled(obj, known, "gen.h", stamps)


def test_a_file_that_can_not_be_read_says_nothing(obj: Path) -> None:
    assert trace.read(obj) == trace.Trace()
    for content in (b"", b"\xc1", b"\x81\xa5goals\x01"):
        (obj / trace.FILE).write_bytes(content)
        assert trace.read(obj) == trace.Trace()


def test_what_is_written_is_read(obj: Path) -> None:
    known = trace.Trace(
        {"x": trace.Said({"A": "1"}, {"t": ["u"]})}, {"t": (1, 2, "abc")}, {"g": "d"}
    )
    trace.write(obj, known)
    assert trace.read(obj) == known


def test_make_tells_when_it_came_to_each_object(obj: Path, stamps: Stamps) -> None:
    makefile = obj / "Makefile"
    makefile.write_text(
        makefile.read_text().replace(
            "a.o b.o: %.o: %.c FORCE\n\t@:\n",
            "a.o b.o: %.o: %.c FORCE\n\t@sleep 0.3; touch .$@.cmd\n\t@sleep 0.3\n",
        )
    )
    with trace.listening(obj, "goal", stamps) as more:
        subprocess.run(
            ["make", "-C", str(obj), "--no-print-directory", "all", trace.GOAL],
            check=True,
            env=clean_env({**more, "sub_make_done": "1"}),
        )
        assert sorted(os.listdir(trace.begun(obj))) == ["a.o", "b.o"]
        took = seconds.measured(obj, trace.begun(obj))
    assert sorted(took) == ["a.o", "b.o"]
    assert all(0.25 < one < 0.6 for one in took.values())  # of the first line, up to the record
