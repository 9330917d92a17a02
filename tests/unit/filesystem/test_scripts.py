"""Which commands a script calls, and which of them busybox lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.filesystem import scripts
from tasks.filesystem.tree import Entry

TOP = Path(__file__).parents[3]


def names(text: str, path: str = "/etc/init.d/S1", head: str = "#!/bin/sh\n") -> list[str]:
    calls = scripts.called(Entry(path, "file", 0o755, source=(head + text).encode()))
    return sorted(call.name for call in calls)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ls -l cat; mv a b && rm c || ln d e | wc\n", ["ln", "ls", "mv", "rm", "wc"]),
        ("a=1 b=$(date) env\n", ["date", "env"]),
        ("# ls\n: a#ls\n", [":"]),
        ("echo 'cat; ls' \"$(head -n 1 'a)') `tail x`\" \"mv $HOME\"\n", ["echo", "head", "tail"]),
        ("if grep -q x y; then sed p; elif ! cut z; then :; else wc; fi\n",
         [":", "cut", "grep", "sed", "wc"]),
        ("for cat in ls mv; do rm; done\nfor x\ndo cp; done\n", ["cp", "rm"]),
        ("while read a; do df; done <ls >mv 2>&1\n", ["df", "read"]),
        ("case $(uname) in ls|mv) cp ;; (*) rm\nesac; sync\n", ["cp", "rm", "sync", "uname"]),
        ("case a in b) ls ;; esac | wc\n", ["ls", "wc"]),
        ("row() { sed p; }\nrow() (cat)\nrow x | row\n", ["cat", "sed"]),
        ("sed () { :; }\nfunction cut { :; }\nsed; cut\n", [":", "function"]),
        ("alias wc='x'\nwc\n", ["alias"]),
        ("type 'sed' && sed; hash cut && cut\n", ["hash", "type"]),
        ("cat <<EOF\nls $(date)\nEOF\nsync\n", ["cat", "date", "sync"]),
        ("cat <<'EOF' && rm x\nls $(date)\nEOF\nsync\n", ["cat", "rm", "sync"]),
        ("cat <<EOF\n\tEOF\nsed p\nEOF\nsync\n", ["cat", "sync"]),
        ("cat <<-EOF\n\tsed p\n\tEOF\nsync\n", ["cat", "sync"]),
        ("x=$(echo \"a \\\" b)\"); sed p\n", ["echo", "sed"]),
        ("x=$(echo 'a\\' b); sed p\n", ["echo", "sed"]),
        ("exec httpd -f; exec >x; nohup setsid sleep 1\n",
         ["exec", "httpd", "nohup", "setsid", "sleep"]),
        ("nice -n 5 awk x; nice -5 sed; ls | xargs -rn 1 -n2 -I % cut -d a; env -u A wc\n",
         ["awk", "cut", "env", "ls", "nice", "sed", "wc", "xargs"]),
        ("[[ a && awk || (cut) ]] && wc; [[ -n x ]]\nls\n", ["[[", "ls", "wc"]),
        ("cat <<'A B' && rm x\nls\nA\nA B\nsync\n", ["cat", "rm", "sync"]),
        ("/sbin/ifconfig; /opt/ls; $cmd ls; \"$a\" x; ./mv\n", ["ifconfig"]),
        ("x=$((1 + $(wc))) y=${a:-ls}\n", []),
        ("(cd x && ls) &\n{ mv a; }\nls \\\n  cat\n", ["cd", "ls", "mv"]),
        ("command -v ip >/dev/null && ip link || ifconfig\n", ["command", "ifconfig"]),
        ("[ -x /sbin/tc ] && tc x\n", ["["]),
        ("# which sed\nsed x  # command -v sed\n", ["sed"]),
        ("echo ' # '; which sed && sed x\n", ["echo", "which"]),
        ("timeout -s KILL 0.5 sed x\neval awk x\n", ["awk", "eval", "sed", "timeout"]),
    ],
)  # fmt: skip
def test_what_is_a_command(text: str, found: list[str]) -> None:
    assert names(text) == found


def test_the_line_of_the_first_call() -> None:
    text = "#!/bin/sh\n# x\ncat <<A\n$(date)\nA\ny=$(\nls)\nls\n"
    calls = scripts.called(Entry("/x", "file", 0o755, source=text.encode()))
    assert {call.name: call.line for call in calls} == {"cat": 3, "date": 4, "ls": 7}


def test_what_is_no_script() -> None:
    assert names("ls\n", head="#!/usr/bin/python3\n") == ["python3"]  # which may be an applet
    assert names("ls\n", head="") == []
    assert names("ls\n", path="/etc/profile", head="") == ["ls"]
    assert names("::sysinit:/etc/init.d/rcS\n#x::y:ls\ntty1::respawn:-/bin/sh -l\n",
                 path="/etc/inittab", head="") == ["rcS", "sh"]  # fmt: skip


def test_an_applet_that_is_off_is_found() -> None:
    def script(text: str) -> Entry:
        return Entry("/etc/s", "file", 0o755, source=f"#!/bin/sh\n{text}\n".encode())

    here = Entry("/bin/ls", "link", 0o777, target="busybox")
    applets = {"ls", "sed", "echo", "kill"}
    found = scripts.missing([here, script("ls; sed x; echo; mine")], applets, {"ASH_ECHO": "y"})
    assert [(path, call.name, call.line) for path, call in found] == [("/etc/s", "sed", 2)]
    found = scripts.missing([script("echo; kill 1")], applets, {"ASH_ECHO": "n"})
    assert [call.name for _, call in found] == ["echo", "kill"]


def test_functions_of_a_file_that_is_read() -> None:
    def script(name: str, text: str) -> Entry:
        return Entry(name, "file", 0o755, source=f"#!/bin/sh\n{text}\n".encode())

    more = Entry("/etc/more", "file", 0o644, source=b"log () { :; }\n")
    reads, alone = script("/etc/a", ". /etc/more\nlog; cut"), script("/etc/b", "log")
    found = scripts.missing([more, reads, alone], {"log", "cut"}, {})
    assert [(path, call.name) for path, call in found] == [("/etc/a", "cut"), ("/etc/b", "log")]


def test_a_program_of_the_users_own() -> None:
    here = Entry("/usr/local/bin/sed", "file", 0o755, source=b"")
    script = Entry("/etc/s", "file", 0o755, source=b"#!/bin/sh\nsed x\n")
    assert scripts.missing([here, script], {"sed"}, {}) == []


def test_what_ends_in_the_middle_ends() -> None:
    for text in ("a '", 'a "$(b', "case x in", "cat <<E", "f(", "x=${", "`", "$((", "\\", "a <"):
        names(text)
    names("$(" * 9999)


def test_the_overlays_here_call_what_is_known() -> None:
    """Each name that the overlays call is a builtin or could be a program."""
    found = {
        call.name
        for path in TOP.glob("overlays/*/**/*")
        if path.is_file()
        for call in scripts.called(
            Entry(f"/{'/'.join(path.relative_to(TOP).parts[2:])}", "file", 0o755, source=path)
        )
    }
    assert {"mount", "httpd", "udhcpc"} <= found
    assert not found & {"start", "stop", "if", "done", "esac", "said", "row", "bound"}
