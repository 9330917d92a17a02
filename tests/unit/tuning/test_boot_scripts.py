"""The lines of start scripts that programs come from."""

from __future__ import annotations

import pytest

from tasks.tuning import boot_scripts
from tasks.tuning.boot import Bar

SCRIPT = """\
#!/bin/sh
# mount nothing here
mount /proc 2>/dev/null
grep -q "x" /proc/mounts || mount "$point"
mount -a
[ -x "$script" ] && sleep 1
grep -q inet /proc/net
/usr/share/udhcpc/default.script bound
[ -x "$script" ] || continue
    "$script" start || echo "$script ended with $?"
[ -n "$stop" ] && [ "$one" = stop ]
"""


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ('*) "$i" start ;;', 1),
        ('exec "$1" start', 1),
        ('[ -x "$s" ] && ${s} start', 1),
        ('echo "$s" start', 0),
        ('"$s" stop', 0),
    ],
)
def test_a_script_may_be_named_by_a_variable(line: str, number: int) -> None:
    assert boot_scripts.line_of(f"{line}\n", "/bin/sh /etc/init.d/S40network start") == number


def test_a_script_without_arguments_is_not_guessed() -> None:
    assert boot_scripts.line_of('"$s"\n', "/bin/sh /etc/init.d/S40network") == 0


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("mount /proc", 3),
        ("mount -a", 5),
        ("mount /sys", 0),  # three lines fit it equally
        ("sleep 1", 6),
        ("grep -q inet /proc/net", 7),
        ("/bin/sh /usr/share/udhcpc/default.script bound", 8),
        ("/bin/sh /etc/init.d/S10network start", 10),
        ("/bin/sh /etc/init.d/S10network stop", 0),  # no line has the word
        ("nothing", 0),
        ("", 0),
    ],
)
def test_a_line_is_named_where_it_alone_fits_best(command: str, line: int) -> None:
    assert boot_scripts.line_of(SCRIPT, command) == line


def test_a_program_belongs_to_the_innermost_script_that_runs_it() -> None:
    bars = [
        Bar("program", "/bin/sh /etc/rcS", 1, 0, 1000),
        Bar("program", "mount -a", 1, 10, 20),
        Bar("program", "/bin/sh /etc/inner start", 1, 100, 100),
        Bar("program", "sleep 2", 1, 150, 10),
        Bar("program", "sleep 1", 1, 300, 10),
        Bar("program", "udhcpc", 1, 400, 100),
        Bar("program", "/bin/sh /usr/share/udhcpc/default.script bound", 1, 420, 10),
        Bar("program", "/bin/sh /usr/share/udhcpc/default.script bound", 1, 600, 10),
        Bar("program", "-sleep 1", 1, 700, 10),
        Bar("program", "mount -a", 1, 2000, 10),
    ]
    texts = {"/etc/rcS": ("o/rcS", SCRIPT), "/etc/inner": ("o/inner", "sleep 2\n")}
    found = boot_scripts.explained(bars, lambda path: texts.get(path, ("", "")))
    assert [bar.reason for bar in found] == [
        *("", "o/rcS:5", "o/rcS:10", "o/inner:1", "o/rcS:6", ""),
        *("", "o/rcS:8", "", ""),
    ]
