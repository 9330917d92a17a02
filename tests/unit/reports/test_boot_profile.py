"""Counted boots as text, their limits, and earlier ones."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tasks.guest.qemu import Boot
from tasks.guest.serial import Limits
from tasks.reports import boot_options, boot_other, boot_profile, boot_seconds, boot_text
from tasks.system.errors import PiggyError
from tasks.tuning import boot
from tasks.tuning.boot import Bar, Profile

BARS = (
    Bar("phase", "firmware", 0, 0, 250_000),
    Bar("phase", "initcalls: device", 0, 250_000, 750_000, 170, 160, 30),
    Bar(
        "initcall",
        "slow_init",
        1,
        250_000,
        500_000,
        0,
        0,
        20,
        "device",
        "",
        "a.o",
        "A",
        "f.config:3",
    ),
    Bar("initcall", "quick_init", 1, 750_000, 10),
)


def profile(state: str = "s", bars: tuple[Bar, ...] = BARS, total: int = 1_000_000) -> Profile:
    return Profile(
        machine="pc", state=state, instructions=total, milliseconds=170, bytes=30, bars=bars
    )


def wall_build(folder: Path) -> boot_profile.Build:
    """A build with nothing in it."""
    return boot_profile.Build(
        name="pc",
        vmlinux=folder,
        files={},
        image="bzImage",
        raw="Image",
        packed="",
        config=None,
        obj=None,
        kept=folder,
    )


def test_a_waterfall_has_a_place_and_a_reason_for_each_bar() -> None:
    lines = list(boot_text.waterfall(profile()))
    slow = next(line for line in lines if "slow_init" in line)
    assert slow.endswith("|      ============      |  a.o, CONFIG_A, f.config:3")
    assert "500,000" in slow
    assert next(line for line in lines if "device" in line).split()[3:7] == [
        "170",
        "160",
        "ms",
        "30",
    ]
    assert not any("quick_init" in line for line in lines)
    assert "  and 1 shorter ones: --all shows them" in lines
    assert any("quick_init" in line for line in boot_text.waterfall(profile(), whole=True))


def test_equal_boots_have_no_difference() -> None:
    lines = list(boot_text.against(profile(), profile(), [], False))
    assert lines == ["no difference: 1,000,000 instructions, in every bar as before"]


def test_a_comparison_has_the_whole_in_its_last_line() -> None:
    new = profile(bars=(*BARS, Bar("initcall", "new_init", 1, 9, 100_000)), total=1_100_000)
    lines = list(boot_text.against(profile(), new, boot.compare(profile(), new), False))
    assert lines[1].split()[:4] == ["new_init", "-", "100,000", "+100,000"]
    assert lines[-1].split() == ["all", "1,000,000", "1,100,000", "+100,000", "+10.00%"]


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("1M", True),
        ("999999", False),
        ("1000K", True),
        ("0.9M", False),
        ("170ms", True),
        ("169ms", False),
        ("1.000000M", True),
        ("0.999999M", False),
    ],
)
def test_a_limit_is_in_instructions_or_milliseconds(text: str, fits: bool) -> None:
    limit = boot_options.limit(text)
    assert limit
    if fits:
        limit.check(profile())
    else:
        with pytest.raises(PiggyError, match="more than its limit"):
            limit.check(profile())


@pytest.mark.parametrize(
    ("text", "most"), [("256.936M", 256_936_000), ("1.001M", 1_001_000), ("0.000001G", 1_000)]
)
def test_a_limit_with_decimals_is_exact(text: str, most: int) -> None:
    assert boot_options.limit(text) == boot_options.Limit(most, timed=False)


def test_a_part_of_a_millisecond_is_no_limit() -> None:
    with pytest.raises(PiggyError, match="whole milliseconds") as caught:
        boot_options.limit("0.9ms")
    assert caught.value.hint == "--limit=1ms"


@pytest.mark.parametrize("text", ["x", "12X", "-1", "1 M", "1s", "١M"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(PiggyError, match="is no limit"):
        boot_options.limit(text)
    assert boot_options.limit("") is None


def test_earlier_profiles_are_found_by_name_by_path_and_as_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project: Any = None
    for age, name in enumerate(("a" * 16, "b" * 16)):
        boot_profile._keep(tmp_path, profile(name))
        os.utime(tmp_path / f"{name}.json", (1000 - age, 1000 - age))
    assert boot_other.named(project, tmp_path, "bb") == profile("b" * 16)
    path = str(tmp_path / f"{'a' * 16}.json")
    assert boot_other.named(project, tmp_path, path) == profile("a" * 16)
    assert boot_other.last(tmp_path, "a" * 64).state == "b" * 16
    assert boot_other.last(tmp_path, "b" * 64).state == "a" * 16
    boot_profile._keep(tmp_path, profile("ab" * 8))
    with pytest.raises(PiggyError, match="names 2 profiles"):
        boot_other.named(project, tmp_path, "a")
    # What names no profile is read as `doit size` reads it.
    monkeypatch.setattr(boot_other.builds, "named", lambda project, word: (project, word))
    assert boot_other.named(project, tmp_path, "cc") == (project, "cc")

    def none(project: Any, word: str) -> None:
        raise boot_other.Unnamed(f"'{word}' names no build", "it may be a machine")

    monkeypatch.setattr(boot_other.builds, "named", none)
    with pytest.raises(PiggyError, match="'cc' names no build") as caught:
        boot_other.named(project, tmp_path, "cc")
    assert caught.value.hint.startswith(
        "it may be a machine; or 'last', or a profile that was kept ("
    )


def test_a_commit_stands_for_the_profile_made_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project: Any = None
    here = msgspec.structs.replace(profile("a" * 16), commits=("1" * 40,))
    boot_profile._keep(tmp_path, here)
    boot_profile._keep(tmp_path, profile("b" * 16))
    monkeypatch.setattr(boot_other.builds, "named", lambda project, word: word * 40)
    assert boot_other.named(project, tmp_path, "1") == here
    # made once more at another commit, it is of both
    boot_profile._keep(tmp_path, msgspec.structs.replace(here, commits=("2" * 40,)))
    for word in "12":
        found = boot_other.named(project, tmp_path, word)
        assert isinstance(found, Profile)
        assert (found.state, found.commits) == ("a" * 16, ("2" * 40, "1" * 40))
    with pytest.raises(PiggyError, match="no boot was counted at the commit 333"):
        boot_other.named(project, tmp_path, "3")


@pytest.mark.parametrize("image", ["bzImage", "vmlinux"])
def test_the_images_of_another_build_are_booted_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    monkeypatch.setattr(boot_other.sizes, "kernel", lambda path: None)
    files = {name: tmp_path / name for name in ("vmlinux", "bzImage", "initramfs")}
    for path in files.values():
        path.write_text("x")
    it = Boot(kernel=Path("/here") / image, initrd=tmp_path / "mine", memory=7)
    (tmp_path / "mine").write_text("x")

    def build(names: list[str]) -> Any:
        return SimpleNamespace(files={name: files[name] for name in names})

    project: Any = None
    found = boot_other.images(project, it, build(["vmlinux", "bzImage", "initramfs"]), "x")
    assert (found.kernel, found.initrd, found.memory) == (files[image], files["initramfs"], 7)
    if image == "vmlinux":  # one of the store, say
        found = boot_other.images(project, it, build(["vmlinux"]), "x")
        assert (found.kernel, found.initrd) == (files["vmlinux"], tmp_path / "mine")
    else:
        with pytest.raises(PiggyError, match="has no bzImage") as caught:
            boot_other.images(project, it, build(["vmlinux"]), "x")
        assert caught.value.hint.startswith("image=vmlinux boots one")
    with pytest.raises(PiggyError, match="with a root filesystem"):
        boot_other.images(project, it, build(["vmlinux", "bzImage"]), "x")


@pytest.mark.parametrize("image", ["bzImage", "vmlinux"])
def test_a_program_of_somebody_else_is_not_booted(image: str) -> None:
    it = Boot(kernel=Path("/here") / image, initrd=Path("/here/initrd"))
    other: Any = SimpleNamespace(files={"vmlinux": Path("/bin/sh")})
    project: Any = None
    with pytest.raises(PiggyError, match="/bin/sh is no vmlinux with its symbols"):
        boot_other.images(project, it, other, "/bin/sh")


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A job whose machine boots at once."""
    monkeypatch.setattr(boot_profile, "measured", lambda *which: profile("a" * 64))
    return SimpleNamespace(project=SimpleNamespace(layout=SimpleNamespace(here=tmp_path)))


def test_the_first_boot_is_kept_though_there_is_none_to_compare_it_with(job: Any) -> None:
    with pytest.raises(PiggyError, match="names no profile"):
        boot_profile.profile(job, against="last")
    boot_profile.profile(job, against="last")


def test_a_trace_is_a_regular_file_or_nothing_is_booted(
    job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real.json"
    (tmp_path / "link").symlink_to(real)
    boot_profile.profile(job, trace=str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert json.loads(real.read_text())["traceEvents"]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(boot_profile, "measured", lambda *which: pytest.fail("it is booted"))
    with pytest.raises(PiggyError, match="no regular file"):
        boot_profile.profile(job, trace=str(pipe))
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("name", "option"), [("limit", "limit"), ("trace", "trace"), ("whole", "all")]
)
def test_seconds_have_no_option_of_counts(name: str, option: str) -> None:
    given = {"limit": "", "trace": "", "whole": False, "wall": True}
    with pytest.raises(PiggyError, match=f"--wall does not go with --{option}"):
        boot_options.check(**{**given, name: "5"})
    boot_options.check(**given)


@pytest.mark.parametrize("word", ["last", "a1", "old.json"])
def test_seconds_are_not_held_against_a_count(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot_profile._keep(tmp_path / boot_other.FOLDER, profile("a1b2" * 16))
    monkeypatch.setattr(boot_seconds.qemu, "checked", lambda project: None)
    monkeypatch.setattr(boot_seconds.guest_boot, "accelerator", lambda *given: "tcg")
    monkeypatch.setattr(boot_seconds.guest_boot, "limits", lambda *given: Limits())
    (tmp_path / "config").touch()
    project: Any = SimpleNamespace(
        layout=SimpleNamespace(here=tmp_path, config=tmp_path / "config")
    )
    with pytest.raises(PiggyError, match=f"'--against {word}' is a count") as caught:
        boot_seconds.compare(project, boot_options.Asked(against=word, wall=True))
    assert caught.value.hint.startswith("name a machine or a build folder")


@pytest.mark.parametrize("against", ["", "other"])
def test_seconds_of_boots(
    against: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two builds take turns, and what counts is the difference in pairs."""
    it, build = object(), wall_build(tmp_path)
    seconds = {"this": 1.0, "other": 0.75}

    @contextlib.contextmanager
    def session(argv: list[str], log: Path, limits: Limits) -> Iterator[Any]:
        yield SimpleNamespace(ready=lambda: seconds[log.stem.rpartition("_")[2]])

    for place, name, value in (
        (boot_seconds.qemu, "checked", it),
        (boot_seconds.guest_boot, "accelerator", "tcg"),
        (boot_seconds.guest_boot, "limits", Limits()),
        (boot_seconds.guest_boot, "command", []),
        (boot_seconds.builds, "named", build),
        (boot_seconds.boot_other, "images", it),
    ):
        monkeypatch.setattr(place, name, lambda *given, value=value, **named: value)
    monkeypatch.setattr(boot_seconds.console, "session", session)
    (tmp_path / "config").touch()
    layout = SimpleNamespace(here=tmp_path, logs=tmp_path, config=tmp_path / "config")
    project: Any = SimpleNamespace(layout=layout)
    boot_seconds.compare(project, boot_options.Asked(against=against, wall=True))
    said = capsys.readouterr().out
    assert "this build" in said
    assert ("slower than other" in said) is bool(against)
    asked = boot_options.Asked(against=against, wall=True, as_json=True)
    boot_seconds.compare(project, asked)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["this"]["median"] == 1.0
    assert len(found["new"]) == 30
    assert (found["other"] and found["other"]["median"]) == (0.75 if against else None)
    assert (found["difference"] and found["difference"]["median"]) == (0.25 if against else None)


@pytest.mark.parametrize("why", ["", "the object folder has another state"])
def test_a_profile_whose_bars_have_no_objects_says_why(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(b"kernel")
    it = SimpleNamespace(
        kernel=image, rootfs=None, initrd=None, net=False, nic="", floppy=None, dtb=None
    )
    build = SimpleNamespace(config=image, vmlinux=image)
    end = SimpleNamespace(count=5, bytes=1)
    for place, name, value in (
        (boot_profile.qemu, "checked", it),
        (boot_profile.builds, "of_project", build),
        (boot_profile.builds, "commits", []),
        (boot_profile.dotconfig, "read_config", {}),
        (boot_profile.sizes, "kernel", None),
        (boot_profile.boot_points, "points", []),
        (boot_profile.boot_run, "incomplete", []),
        (boot_profile.boot_run, "record", [end]),
        (boot_profile.boot_run, "unseen", []),
        (boot_profile.marks, "plugin", image),
        (boot_profile.guest_boot, "command", []),
        (boot_profile.boot, "bars", []),
        (boot_profile.sizes, "measure", SimpleNamespace(why=why)),
        (boot_profile.boot_reasons, "explained", []),
    ):
        monkeypatch.setattr(place, name, lambda *given, value=value, **named: value)
    project: Any = SimpleNamespace(
        machine=SimpleNamespace(qemu=SimpleNamespace(binary="", nic=()), arch="x86"),
        layout=SimpleNamespace(here=tmp_path, logs=tmp_path, config=image),
        settings=SimpleNamespace(machine="pc", timeout=120),
        image="bzImage",
    )
    notes = boot_profile.measured(project).notes
    assert [note for note in notes if "objects are told by" in note] == [
        note for note in notes if why and note.startswith(why)
    ]
    assert bool(notes) is bool(why)


def test_the_last_profile_is_for_other_reports(tmp_path: Path) -> None:
    project = SimpleNamespace(layout=SimpleNamespace(here=tmp_path))
    assert boot_profile.latest(project) is None  # type: ignore[arg-type]
    boot_profile._keep(tmp_path / boot_other.FOLDER, profile())
    assert boot_profile.latest(project) == profile()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{}", "is no profile"),
        (b"\xff", "is no profile"),
        (msgspec.json.encode(msgspec.structs.replace(profile(), format=0)), "has format 0"),
        (msgspec.json.encode(profile()).replace(b'"phase"', b'"stage"'), "is no profile"),
    ],
)
def test_a_damaged_profile_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "old.json").write_bytes(content)
    with pytest.raises(PiggyError, match=words):
        boot_other.read(tmp_path / "old.json")


def test_what_a_page_draws_beside_the_last_profile_was_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project: Any = SimpleNamespace(layout=SimpleNamespace(here=tmp_path))
    folder = tmp_path / boot_other.FOLDER
    with pytest.raises(PiggyError, match="names no profile"):
        boot_profile.before(project, "last")
    for age, name in enumerate(("a" * 16, "b" * 16)):
        boot_profile._keep(folder, profile(name))
        os.utime(folder / f"{name}.json", (1000 + age, 1000 + age))
    assert boot_profile.before(project, "last").state == "a" * 16
    assert boot_profile.before(project, "bb").state == "b" * 16
    build = wall_build(tmp_path)
    monkeypatch.setattr(boot_other, "named", lambda *given: build)
    with pytest.raises(PiggyError, match="was not counted"):
        boot_profile.before(project, "pc")
