"""The rule for skips itself, in runs of pytest of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import skips

pytest_plugins = ["pytester"]
TESTS = """
import pytest
import skips


def test_runs():
    pass


def test_called():
    pytest.skip("make is not installed")


@pytest.mark.skipif(True, reason="apt is not installed")
def test_marked():
    pass


@pytest.fixture
def tool():
    pytest.importorskip("no_such_module")


def test_fixture(tool):
    pass


def test_host():
    skips.this_host("no KVM")


@pytest.mark.xfail(reason="known")
def test_known():
    assert False
"""
MODULE = "import pytest\npytest.skip('git is not installed', allow_module_level=True)\n"


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project whose tests obey our conftest's hooks."""
    ours = Path(__file__).resolve().parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{ours}/support")
    monkeypatch.delenv(skips.VARIABLE, raising=False)
    pytester.makeconftest((ours / "conftest.py").read_text())
    pytester.makepyfile(test_all=TESTS, test_module=MODULE)
    return pytester


def test_at_a_desk_a_skip_is_a_skip(inner: pytest.Pytester) -> None:
    done = inner.runpytest_subprocess()
    done.assert_outcomes(passed=1, skipped=5, xfailed=1)
    assert done.ret == 0


@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_where_none_may_be_a_skip_is_a_failure(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv(skips.VARIABLE, "1")
    done = inner.runpytest_subprocess("--continue-on-collection-errors", *words)
    done.assert_outcomes(passed=1, failed=1, errors=3, skipped=1, xfailed=1)
    said = done.stdout.str()
    for why in ("make is not installed", "apt is not installed", "could not import", "git is not"):
        assert f"skipped, and NO_SKIPS is set: {why}" in said
    assert "NO_SKIPS is set: this host" not in said
    assert done.ret != 0
