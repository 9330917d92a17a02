"""What holds for the project as a whole: linters, sizes, words, what is imported when."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from tasks.config.settings import Settings

TOP = Path(__file__).parents[2]
MODULES = sorted(TOP.glob("tasks/**/*.py"))
CODE = [TOP / "dodo.py", *MODULES]
LONGEST = 400  # lines of a module; a sitting's worth, as ruff's formatting is tall
# With a ~ in each, so that this file does not hold what it looks for.
FORBIDDEN = {
    what: pattern.replace("~", "")
    for what, pattern in {
        "unfinished work": r"\b(?:TO~DO|FIX~ME|XX~X|NotImplemented~Error)\b",
        "a path of somebody's machine": r"(?<![\w.])/(?:ro~ot|wo~rk)/[\w.]",
        "a package registry's host": (
            r"\b(?:\w+\.debian\.o~rg|archive\.ubuntu\.c~om|py~pi\.org|files\.python~hosted\.org"
            r"|registry\.np~mjs)"
        ),
    }.items()
}
NAMES = [str(path.relative_to(TOP)) for path in CODE]


def tracked() -> list[Path]:
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z"], cwd=TOP, capture_output=True, text=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    return [TOP / name for name in done.stdout.split("\0") if name and (TOP / name).is_file()]


def tool(name: str, *words: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed; the extra 'test' has it")
    done = subprocess.run(
        [sys.executable, "-m", name, *words], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_is_content() -> None:
    tool("ruff", "check", "--no-cache", "dodo.py", "tasks", "tests")
    tool("ruff", "format", "--check", "--no-cache", "dodo.py", "tasks", "tests")


def test_imports_run_downward() -> None:
    """pyproject.toml says who may import whom."""
    if importlib.util.find_spec("importlinter") is None:
        pytest.skip("import-linter is not installed; the extra 'test' has it")
    script = (
        "import sys; from importlinter.cli import lint_imports;"
        " sys.exit(lint_imports(no_cache=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_is_content() -> None:
    tool("mypy")


@pytest.mark.parametrize("name", NAMES)
def test_a_module_can_be_read_in_one_sitting(name: str) -> None:
    lines = (TOP / name).read_text().splitlines()
    assert len(lines) <= (60 if name == "dodo.py" else LONGEST)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("__init__.py")])
def test_everything_public_says_what_it_is(name: str) -> None:
    tree = ast.parse((TOP / name).read_text())
    assert ast.get_docstring(tree)
    silent = []

    def look(body: list[ast.stmt], where: str) -> None:
        for node in body:
            if isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            ) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    silent.append(f"{where}{node.name} (line {node.lineno})")
                if isinstance(node, ast.ClassDef):
                    look(node.body, f"{where}{node.name}.")

    look(tree.body, "")
    assert silent == []


def test_no_shell_lines() -> None:
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                raise AssertionError(f"{path}:{node.value.lineno}: shell=")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert f"{node.value.id}.{node.attr}" not in {
                    "os.system",
                    "os.popen",
                    "subprocess.getoutput",
                }, path


@pytest.mark.parametrize("what", FORBIDDEN)
def test_words_that_have_no_place_in_a_tracked_file(what: str) -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(TOP)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
            for match in re.finditer(FORBIDDEN[what], text)
        ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("unfinished work", "# TO~DO: later"),
        ("a path of somebody's machine", "cd /wo~rk/main"),
        ("a path of somebody's machine", "'/ro~ot/x'"),
        ("a package registry's host", "https://deb.debian.o~rg/debian"),
        ("a package registry's host", "py~pi.org"),
    ],
)
def test_the_patterns_find_what_they_look_for(what: str, line: str) -> None:
    assert re.search(FORBIDDEN[what], line.replace("~", ""))


def test_every_configuration_file_is_toml() -> None:
    files = [*TOP.glob("configs/**/*.toml"), TOP / "pyproject.toml"]
    assert len(files) > 4
    for path in files:
        tomllib.loads(path.read_text())


def imported(text: str) -> set[str]:
    """The modules of ours that a source imports, by its syntax tree: no word of prose counts."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith("tasks.")}


def test_every_module_is_used() -> None:
    """Each module is imported by another one, or is a provider that toolchain= names."""
    used = {name for path in CODE for name in imported(path.read_text())}
    named = next(one.type for one in msgspec.structs.fields(Settings) if one.name == "toolchain")
    providers = {f"tasks.toolchains.{name}" for name in get_args(named)}
    modules = {
        ".".join(path.relative_to(TOP).with_suffix("").parts)
        for path in MODULES
        if path.stem != "__init__"
    }
    assert sorted(modules - used - providers) == []


def test_words_in_prose_are_no_imports() -> None:
    text = (
        '"""Uses tasks.system.files."""\n# from tasks.system import lock\nx = "tasks.cache.code"\n'
    )
    assert imported(text) == set()
    assert imported(text + "def f():\n    from tasks.system import files\n") == {
        "tasks.system",
        "tasks.system.files",
    }


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules that are there after all that doit loads for a run was loaded."""
    script = (
        "import json, sys; sys.path.insert(0, '.')\nimport dodo\nlist(dodo.task_pipeline())\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=TOP, capture_output=True, text=True, check=True, env=env
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "name",
    [
        "requests",
        "tqdm",
        "kconfiglib",
        "pexpect",
        "tarfile",
        "urllib3",
        "http.client",
        "multiprocessing.pool",
        "asyncio",
        "unittest",
        "PIL",
        "jinja2",
        "plotly",
        "qemu.qmp",
        "debian",
        "ctypes",
        "statistics",
        "tasks.buildroot.tree",
    ],
)
def test_what_costs_start_up_time_is_not_imported(name: str, loaded: set[str]) -> None:
    ours = {f"tasks.{path.stem}" for path in TOP.glob("tasks/*.py") if path.stem != "__init__"}
    assert ours - loaded == set()
    assert name not in loaded


def test_the_reports_are_loaded_when_one_is_asked_for() -> None:
    script = (
        "import sys; sys.path.insert(0, '.')\nsys.argv = ['doit', *sys.argv[1:]]\nimport dodo\n"
        "list(dodo.task_pipeline())\nprint('tasks.reports.price' in sys.modules)"
    )
    for word, loaded in (("vmlinux", "False\n"), ("price", "True\n"), ("list", "True\n")):
        done = subprocess.run(
            [sys.executable, "-c", script, word],
            cwd=TOP,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == loaded, word


def test_loading_starts_no_process_and_opens_no_connection() -> None:
    script = (
        "import sys; sys.path.insert(0, '.')\nseen = []\nbad = ('subprocess.Popen',"
        " 'socket.connect', 'socket.getaddrinfo', 'os.system', 'os.fork',"
        " 'os.exec')\nsys.addaudithook(lambda event, args: seen.append(event) if event in bad else"
        " None)\nimport dodo\nassert list(dodo.task_pipeline())\nsys.exit(str(seen) if seen else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
