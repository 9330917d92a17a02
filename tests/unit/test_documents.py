"""The documents: where their links lead, whether what they name exists, and whether the commands
that they show work."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from doit.doit_cmd import DoitMain

from tasks.config.settings import Settings
from tasks.reports import settings

TOP = Path(__file__).parents[2]
DOCUMENTS = [TOP / "README.md", *sorted(TOP.glob("docs/*.md"))]
NAMES = [str(path.relative_to(TOP)) for path in DOCUMENTS]


WIDTH, README_LINES = 124, 150
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*")  # TASK, NAME, DIR, MACHINE
COMMANDS = {command.get_name() for command in DoitMain.DOIT_CMDS}
# Settings of a machine or a run with which there are other tasks than those of the default.
CONSTELLATIONS = (
    "",
    "display=vga toolchain=buildroot fragments=modules src=.",
    "machine=versatile",
    "machine=mps2",
    "machine=s390x",
    "machine=floppy",
)
# What a code block may show to be run here: it builds nothing, and asks nothing of the host.
FREE = {
    "clean",
    "forget",
    "help",
    "ignore",
    "info",
    "list",
    "plan",
    "settings",
    "store",
    "tabcompletion",
    "why",
}
PARTS = {"kernel/printk"}  # what `doit size` is asked for, beside tasks
DRY = {"net_up", "net_down"}  # free with --dry-run
PATH = re.compile(r"(?<![\w./~-])((?:configs|docs|overlays|tasks|tests)/[\w./*-]*[\w*])")
OTHERS = {
    "init",
    "ip",
    "name",
    "http",
    "rdinit",
}  # words of the kernel's command line, a placeholder, a service


class Line(NamedTuple):
    """A line of a document; code: it lies in a code block, of which `language` is the kind."""

    where: str
    text: str
    code: bool
    language: str


def lines(path: Path) -> Iterator[Line]:
    language, code = "", False
    for number, text in enumerate(path.read_text().splitlines(), 1):
        if text.startswith("```"):
            code, language = not code, "" if code else text[3:]
            continue
        yield Line(f"{path.relative_to(TOP)}:{number}", text, code, language)


def spans(path: Path) -> list[tuple[str, str]]:
    """Each piece of code inside of the text, with its place. A span may go on in the next line."""
    text = "\n".join("" if line.code else line.text for line in lines(path))
    return [
        (str(path.relative_to(TOP)), " ".join(found.split()))
        for found in re.findall(r"`([^`]+)`", text)
    ]


def shown(path: Path) -> list[tuple[str, str]]:
    """Each command line of doit in a code block, with its place."""
    found = [
        (line.where, line.text.strip().removeprefix("$ ")) for line in lines(path) if line.code
    ]
    return [(where, text) for where, text in found if re.match(r"doit\b", text)]


def words(command: str) -> list[str]:
    """The words of a command line that go to doit, without options; up to a pipe or the like, and a
    comment."""
    command = re.split(r"\s(?:\|\|?|&&|>|;)\s", command)[0]
    found, rest = [], iter(shlex.split(command, comments=True)[1:])
    for word in rest:
        if word in ("-n", "--shell"):
            next(rest)
        elif not word.startswith("-"):
            found.append(word)
    return found


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    heads = [
        match[1]
        for line in lines(path)
        if not line.code and (match := re.match(r"#+ +(.*)", line.text))
    ]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    path = TOP / name
    text = "\n".join(line.text for line in lines(path) if not line.code)
    dead = []
    for target in re.findall(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        where = (path.parent / file).resolve() if file else path
        if not where.exists() or (anchor and anchor not in anchors(where)):
            dead.append(target)
    assert dead == []


def test_every_document_can_be_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)", (TOP / "README.md").read_text()))
    assert linked == set(NAMES) - {"README.md"}


@pytest.mark.parametrize("name", NAMES)
def test_lines_fit(name: str) -> None:
    """Tables and code, which can't be wrapped, may be wider; in the README only code may."""
    wide = [
        line.where
        for line in lines(TOP / name)
        if len(line.text) > WIDTH
        and not line.code
        and (name == "README.md" or not line.text.startswith("|"))
    ]
    assert wide == []


def test_the_readme_is_short() -> None:
    assert len((TOP / "README.md").read_text().splitlines()) <= README_LINES


@pytest.mark.parametrize("name", NAMES)
def test_every_path_of_ours_exists(name: str) -> None:
    missing = []
    for line in lines(TOP / name):
        for path in PATH.findall(line.text):
            mine = "/local/" in path or any(
                PLACEHOLDER.fullmatch(part.partition(".")[0]) for part in path.split("/")
            )
            if not mine and not list(TOP.glob(path)):
                missing.append(f"{line.where}: {path}")
    assert missing == []


def test_the_map_has_every_module() -> None:
    rows = re.findall(
        r"^\| `(tasks/\w+/)` \|[^|]*\| ([^|]*) \|$",
        (TOP / "docs" / "develop.md").read_text(),
        re.MULTILINE,
    )
    drawn = {folder: sorted(modules.split(", ")) for folder, modules in rows}
    there = {
        f"tasks/{folder.parent.name}/": sorted(
            path.stem for path in folder.parent.glob("*.py") if path != folder
        )
        for folder in TOP.glob("tasks/*/__init__.py")
    }
    assert drawn == there


def test_the_whole_of_a_machine_file_is_shown() -> None:
    text = (TOP / "docs" / "machines.md").read_text()
    assert f"```toml\n{(TOP / 'configs/machines/pc.toml').read_text()}```\n" in text


def test_the_table_of_settings_is_what_doit_prints() -> None:
    text = (TOP / "docs" / "settings.md").read_text()
    assert text.endswith(f"\n\n{settings.table()}\n"), (
        "doit settings --markdown prints the table anew"
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_exists(name: str) -> None:
    known = {field.name for field in msgspec.structs.fields(Settings)} | OTHERS
    told = {
        match[1] for _, text in spans(TOP / name) if (match := re.fullmatch(r"([a-z_]+)=\S*", text))
    }
    assert told - known == set()


class Copy(NamedTuple):
    """A fresh checkout, in which nothing is built."""

    top: Path
    env: dict[str, str]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self.top,
            env=self.env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    base = tmp_path_factory.mktemp("documents")
    top = base / "checkout"
    for name in ("tasks", "configs", "overlays"):
        shutil.copytree(
            TOP / name,
            top / name,
            ignore=shutil.ignore_patterns("__pycache__", "local"),
            symlinks=True,
        )
    shutil.copy(TOP / "dodo.py", top)
    (base / "home").mkdir()
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(base / "home"),
        "PYTHONPYCACHEPREFIX": str(base / "pycache"),
    }
    return Copy(top, env)


@pytest.fixture(scope="module")
def known_tasks(fresh: Copy) -> set[str]:
    """All tasks that there are, whatever the settings."""
    with ThreadPoolExecutor(2) as pool:
        lists = list(
            pool.map(
                lambda given: fresh.run(f"doit {given} list --all --private --quiet"),
                CONSTELLATIONS,
            )
        )
    assert [done.stdout for done in lists if done.returncode] == []
    return {name for done in lists for name in done.stdout.split()}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_given_to_doit_exists(name: str, known_tasks: set[str]) -> None:
    names = {field.name for field in msgspec.structs.fields(Settings)}

    def exists(word: str, first: bool) -> bool:
        if "=" in word:
            return word.partition("=")[0] in names
        return (
            word in known_tasks
            or word in COMMANDS
            and first
            or PLACEHOLDER.fullmatch(word) is not None
            or word.startswith("build/")
            or "*" in word
            and bool(fnmatch.filter(known_tasks, word))
        )

    wrong = []
    for where, command in [
        *shown(TOP / name),
        *(span for span in spans(TOP / name) if re.match(r"doit\b", span[1])),
    ]:
        plain = [word for word in words(command) if "=" not in word]
        taken = (
            {"help": COMMANDS | {"task"}, "store": {"clear", "push"}, "size": PARTS}.get(
                plain[0], set()
            )
            if plain
            else set()
        )
        wrong += [
            f"{where}: {command}: {word}"
            for word in words(command)
            if not exists(word, word in plain[:1]) and not (word in taken and word in plain[1:])
        ]
    assert wrong == []


def free(command: str) -> str:
    """What a command is that may be run here; "" for one that builds, or asks something of the
    host."""
    first = next((word for word in words(command) if "=" not in word), "")
    dry = first in DRY and "--dry-run" in command and shutil.which("ip")
    return (
        first if (first in FREE or dry) and not PLACEHOLDER.search(" ".join(words(command))) else ""
    )


def test_the_commands_that_are_shown_work(fresh: Copy) -> None:
    """Those of all code blocks that cost no build; each in the state in which those before it left
    the checkout."""
    commands = [(where, text) for path in DOCUMENTS for where, text in shown(path) if free(text)]
    assert {free(text) for _, text in commands} >= FREE - {"forget", "ignore"}
    failed = []
    for where, text in commands:
        done = fresh.run(text)
        if done.returncode or "Traceback" in done.stdout:
            failed.append(f"{where}: {text}: ended with {done.returncode}\n{done.stdout}")
    assert not failed, "\n".join(failed)


def test_the_scripts_that_are_shown_take_these_options() -> None:
    told: dict[str, set[str]] = {}
    for path in DOCUMENTS:
        for line in lines(path):
            if line.code and (match := re.match(r"python (tests/\S+\.py)(.*)", line.text)):
                told.setdefault(match[1], set()).update(re.findall(r"--[\w-]+", match[2]))
    assert len(told) >= 3

    def unknown(script: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, script, "--help"],
            cwd=TOP,
            text=True,
            capture_output=True,
            timeout=60,
            check=True,
        )
        return told[script] - set(re.findall(r"--[\w-]+", done.stdout))

    assert {script: unknown(script) for script in told} == dict.fromkeys(told, set())
