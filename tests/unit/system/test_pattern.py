"""Expressions that are compiled at their first use."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from tasks.cache import code
from tasks.system.pattern import Pattern, pattern

TOP = Path(tasks.__file__).parents[1]

# Prints the modules of ours that compile something while all of them are loaded. (msgspec compiles
# what a field's Meta has.)
LOAD = """
import importlib, linecache, pkgutil, re, sys
import tasks
ours, compile_, seen = sys.argv[1] + "/tasks/", re._compiler.compile, set()

def counted(*given):
    frame = sys._getframe(1)
    while "/re/" in frame.f_code.co_filename:
        frame = frame.f_back
    file = frame.f_code.co_filename
    if file.startswith(ours) and "re.compile(" in linecache.getline(file, frame.f_lineno):
        seen.add(file[len(ours):])
    return compile_(*given)

re._compiler.compile = counted
re.compile("[x]yz{2}")
for module in pkgutil.walk_packages(tasks.__path__, "tasks."):
    importlib.import_module(module.name)
print(*sorted(seen), sep="\\n")
"""


def test_it_is_a_compiled_one_from_its_first_use_on() -> None:
    word = pattern(r"(?P<first>a+)b", re.IGNORECASE)
    assert "search" not in vars(word)
    found = word.search("xAAb")
    assert found
    assert found["first"] == "AA"
    assert word.search is vars(word)["search"]
    assert word.pattern == "(?P<first>a+)b"
    assert word.groupindex == {"first": 1}
    assert word.flags == re.compile("", re.IGNORECASE).flags
    assert word.fullmatch("ab")
    assert not word.match("b")
    assert word.sub("-", "abab") == "--"
    assert pattern(rb"a").findall(b"aba") == [b"a", b"a"]


def test_who_only_looks_at_it_compiles_nothing() -> None:
    wrong = pattern("(")
    assert not hasattr(wrong, "__wrapped__")
    assert not hasattr(wrong, "fget")
    assert copy.copy(wrong).pattern == pickle.loads(pickle.dumps(wrong)).pattern == "("
    with pytest.raises(re.error):
        wrong.search("")


def test_it_counts_as_code() -> None:
    assert code._text(pattern("a")) == code._text(pattern("a")) != code._text(pattern("b"))
    assert code._text(pattern("a", re.M)) != code._text(pattern("a"))
    used = pattern("a")
    used.search("a")
    assert code._text(used) == code._text(pattern("a"))


def test_each_of_ours_can_be_compiled() -> None:
    count = 0
    for module in pkgutil.walk_packages(tasks.__path__, "tasks."):
        for thing in vars(importlib.import_module(module.name)).values():
            for one in thing.values() if isinstance(thing, dict) else (thing,):
                if isinstance(one, Pattern):
                    re.compile(one.pattern, one.given)
                    count += 1
    assert count > 150


def test_none_of_ours_is_compiled_while_our_modules_load() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(TOP)], cwd=TOP, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
