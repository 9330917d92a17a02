from __future__ import annotations

import importlib.util
import marshal
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]
START = (
    "import sys; sys.path[:0] = [{here!r}, {top!r}]\nfrom tasks.system import bytecode;"
    " bytecode.install(__spec__)\n"
)


def cached(source: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(source)))


def run(here: Path, script: str) -> subprocess.CompletedProcess[str]:
    (here / "main.py").write_text(START.format(here=str(here), top=str(TOP)) + script)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(here)!r}); import main"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )


@pytest.mark.parametrize("length", [0, 15, 16, 100, -1], ids=str)
def test_byte_code_that_was_cut_off_is_made_anew(tmp_path: Path, length: int) -> None:
    """Of a module, and of the one that asks for all this; wherever it was cut."""
    (tmp_path / "big.py").write_text(
        "".join(f"def f{number}(): return {number}\n" for number in range(50))
    )
    script = "import big; print(big.f49())"
    assert run(tmp_path, script).stdout == "49\n"
    for name in ("big", "main"):
        place = cached(tmp_path / f"{name}.py")
        whole = place.read_bytes()
        place.write_bytes(whole[:length] if length >= 0 else whole[:16] + b"\0" * (len(whole) - 16))
        if name == "main":  # as it is on the run that wrote it
            code = (
                "import sys; from importlib.machinery import ModuleSpec; spec = ModuleSpec('main',"
                f" None); spec.cached = {str(place)!r}; sys.path.insert(0, {str(TOP)!r}); from"
                " tasks.system import bytecode; bytecode.install(spec)"
            )
            subprocess.run([sys.executable, "-c", code], check=True)
            assert not place.exists()
        done = run(tmp_path, script)
        assert (done.stdout, done.returncode) == ("49\n", 0), done.stderr
        marshal.loads(cached(tmp_path / "big.py").read_bytes()[16:])


def test_what_is_wrong_in_the_source_is_said_as_ever(tmp_path: Path) -> None:
    for name, text in (
        ("bad", "def"),
        ("nul", "a\0b"),
        ("missing", "import no_such_module"),
        ("raises", "int('x')"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    script = (
        "for name in ('bad', 'nul', 'missing', 'raises', 'none'):\n    try:\n       "
        " __import__(name)\n    except Exception as error:\n        print(name,"
        " type(error).__name__)\n"
    )
    said = run(tmp_path, script).stdout.splitlines()
    assert said[0] == "bad SyntaxError"
    assert said[1] in ("nul ValueError", "nul SyntaxError")  # the latter since Python 3.12
    assert said[2:] == [
        "missing ModuleNotFoundError",
        "raises ValueError",
        "none ModuleNotFoundError",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "dodo.py",
        "tasks/__init__.py",
        "tasks/graph/__init__.py",
        "tasks/graph/startup.py",
        "tasks/system/__init__.py",
        "tasks/system/bytecode.py",
    ],
)
def test_what_is_loaded_before_fits_into_one_page(name: str) -> None:
    code = compile((TOP / name).read_text(), "/" + "x" * 500 + name, "exec")
    assert 16 + len(marshal.dumps(code)) < 4096
