"""doit's own commands and options: each has a meaning here, or ends with a sentence."""

from __future__ import annotations

import shutil
import signal

import pytest
from playground import TOP, Kept, Playground

MAIN = "init/main.c"


@pytest.mark.parametrize("threads", [[], ["-n", "2"]])
def test_by_force_after_an_edit_and_back(built: Playground, kept: Kept, threads: list[str]) -> None:
    built.store_size = "1G"
    built.doit("-a", "vmlinux")  # into the store
    built.append(built.linux / MAIN, "/* more */\n")
    assert "vmlinux" in built.doit("vmlinux").ran
    built.edit(built.linux / MAIN, "/* more */\n", "")
    result = built.doit(*threads, "-a", "vmlinux")
    assert result.restored == []
    assert {"kernel_config", "vmlinux"} <= set(result.ran)
    built.doit("forget", "vmlinux")
    result = built.doit(*threads, "-a", "vmlinux")
    assert (result.restored, "vmlinux" in result.ran) == ([], True)
    assert built.doit(*threads, "-a", "-s", "vmlinux").ran == ["vmlinux"]
    result = built.doit("forget", "vmlinux")
    assert "forgetting vmlinux\n" in result.text
    assert (
        "  store              has what is made by vmlinux: the next run brings it back"
        in result.text
    )
    assert built.doit("vmlinux").restored == ["vmlinux"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("info vmlinuz", "there is no task 'vmlinuz'. Did you mean 'vmlinux'?"),
        ("list vmlinuz", "there is no task 'vmlinuz'. Did you mean 'vmlinux'?"),
        ("forget vmlinuz", "there is no task 'vmlinuz'. Did you mean 'vmlinux'?"),
        ("ignore vmlinuz", "there is no task 'vmlinuz'. Did you mean 'vmlinux'?"),
        ("nosuch*", "there is no task 'nosuch*'."),
        ("vmlinux fecth:*", "there is no task 'fecth:*'."),
        ("vmlinux list", "the command 'list' stands before everything else"),
        ("qemu_*", "the pattern 'qemu_*' names nothing that is made"),
        ("list --template={x}", "the template '{x}' can't be filled in: 'x'"),
        ("list --template={name:zz}", "the template '{name:zz}' can't be filled in: Unknown"),
        ("list --template={name.x}", "the template '{name.x}' can't be filled in: 'str' object"),
        ("list --template={", "the template '{' can't be filled in: Single '{'"),
        ("list --template={status}", "a template with {status} needs the option -s"),
        ("clean vmlinuz", "there is no task 'vmlinuz'. Did you mean 'vmlinux'?"),
        ("help vmlinuz", "there is no command or task 'vmlinuz'. Did you mean 'vmlinux'?"),
        ("vmlinuz", "there is no command, task or output 'vmlinuz'. Did you mean 'vmlinux'?"),
        ("run vmlinuz", "there is no command, task or output 'vmlinuz'. Did you mean 'vmlinux'?"),
        ("forgt vmlinux", "there is no command, task or output 'forgt'. Did you mean 'forget'?"),
        ("auto", "there is no command, task or output 'auto'."),
        ("ignore", "no task is named to be ignored"),
        ("reset-dep vmlinux", "'doit reset-dep' has no meaning here: a task is up to date only if"),
        ("strace vmlinux", "'doit strace' has no meaning here: doit traces shell commands only"),
        ("dumpdb", "'doit dumpdb' has no meaning here: it reads another kind of database"),
        ("run -r json", "the option -r can't be used here: only our own reporter locks"),
        ("-o out vmlinux", "the option -o can't be used here: tasks write to the terminal"),
        ("list --db-file=out", "the option --db-file can't be used here: the journal"),
        ("run --backend=json", "the option --backend can't be used here: the journal is"),
        ("run --check_file_uptodate=md5", "the option --check_file_uptodate can't be used here"),
    ],
)
def test_what_is_refused(fresh: Playground, words: str, said: str) -> None:
    shutil.copy(TOP / "pyproject.toml", fresh.top)
    before = {path.name for path in fresh.top.iterdir()}
    result = fresh.doit(*words.split(), status=3)
    assert result.text.startswith(f"ERROR: {said}"), result.text
    lines = result.text.strip().splitlines()
    assert len(lines) == 2, result.text
    assert lines[1].startswith("  hint: ")
    assert {path.name for path in fresh.top.iterdir()} <= before | {"build", "__pycache__"}
    assert result.ran == []


def test_clean_says_what_it_removes(built: Playground) -> None:
    image = "build/fake/images/Image"
    assert built.doit("clean", "--dry-run", "Image", "settings").text == f"would remove {image}\n"
    assert built.doit("clean", image, "settings").text == f"remove {image}\n"
    assert built.doit("clean", "Imag*").text == "nothing to remove\n"
    assert built.doit().ran == ["Image"]


def test_ignore_and_the_answers(built: Playground) -> None:
    built.append(built.linux / MAIN, "/* more */\n")
    text = built.doit("ignore", "vmlinux").text
    assert "what is made from vmlinux is left alone, too; 'doit forget TASK' ends that" in text
    said = "left alone, as 'doit ignore' was told vmlinux; 'doit forget TASK' ends that"
    assert built.doit("why", "Image").text == f"  ignored            Image: {said}\n"
    plan = built.doit("plan").text
    assert "  ignored            bzImage" in plan
    assert "nothing to do for" in plan
    assert built.doit().ran == []
    assert "init/main.c" in built.doit("info", "vmlinux", status=1).text  # its record is there
    built.doit("forget", "vmlinux")
    assert "vmlinux" in built.doit().ran


def test_what_changes_records_waits_for_a_run(built: Playground) -> None:
    built.append(built.linux / MAIN, "/* more */\n")
    built.pause("main.o")
    building = built.start("vmlinux")
    built.reached("main.o")
    for words in (["forget", "Image"], ["ignore", "Image"], ["clean", "Image"]):
        waiting = built.start(*words)
        assert waiting.stdout
        assert "WAIT    build/fake is in use by another run" in waiting.stdout.readline()
        waiting.send_signal(signal.SIGINT)
        text = waiting.communicate(timeout=30)[0]
        assert waiting.returncode == 130
        assert "interrupted; what was finished is kept" in text
        assert "Traceback" not in text
    assert built.doit("clean", "--dry-run", "Image").text.startswith("would remove")
    built.resume()
    building.communicate(timeout=60)
    assert building.returncode == 0
    assert (built.images / "Image").exists()
