"""When KVM is used, and what is remembered of it. The boot sector is assembled again where an
assembler is at hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.guest import kvm
from tasks.system.errors import PiggyError

SOURCE = """
    .code16
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    movw $0x3f8, %dx
    movb $'r', %al
    outb %al, %dx
    lgdt gdtr
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmp $8, $prot
    .code32
prot:
    movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $0x7000, %esp
    movb $'p', %al
    outb %al, %dx
    movl $0x2000, %edi
    movl $3, %eax
1:  stosl
    addl $0x1000, %eax
    cmpl $0x400003, %eax
    jne 1b
    movl $0x2003, 0x1000
    movl $0x1000, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    movb $'g', %al
    outb %al, %dx
    movl $0x80000 + tick, 0x3040
    movl $0x8e00, 0x3044
    lidt idtr
    movb $0xfe, %al
    outb %al, $0x21
    xorl %ebx, %ebx
    sti
2:  hlt
    cmpl $3, %ebx
    jb 2b
    movb $'t', %al
    outb %al, %dx
3:  hlt
    jmp 3b
tick:
    incl %ebx
    movb $0x20, %al
    outb %al, $0x20
    iret
    .balign 8
gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr: .word 23
    .long gdt
idtr: .word 0x47
    .long 0x3000
    .org 510
    .word 0xaa55
"""
PREFIX = next(
    (prefix for prefix in ("i686-linux-gnu-", "x86_64-linux-gnu-") if shutil.which(f"{prefix}as")),
    "",
)


@pytest.mark.skipif(not PREFIX, reason="no x86 assembler")
def test_sector_is_what_its_comments_say(tmp_path: Path) -> None:
    (tmp_path / "s.S").write_text(SOURCE)
    subprocess.run([f"{PREFIX}as", "--32", tmp_path / "s.S", "-o", tmp_path / "s.o"], check=True)
    subprocess.run(
        [
            f"{PREFIX}ld",
            "-m",
            "elf_i386",
            "-Ttext",
            "0x7c00",
            "-e",
            "0x7c00",
            "--oformat",
            "binary",
            "-o",
            tmp_path / "s",
            tmp_path / "s.o",
        ],
        check=True,
    )
    # the padding before the table is the assembler's choice, and never executed
    ours, theirs = bytearray(kvm.SECTOR), bytearray((tmp_path / "s").read_bytes())
    ours[0x9B:0xA0] = theirs[0x9B:0xA0] = bytes(5)
    assert ours == theirs


@pytest.mark.skipif(not shutil.which("qemu-system-i386"), reason="no qemu-system-i386")
def test_sector_runs_to_its_end() -> None:
    assert kvm.try_sector("qemu-system-i386", "tcg", 20) == ""


def program(tmp_path: Path, body: str) -> str:
    path = tmp_path / "qemu-system-i386"
    path.write_text(
        f"#!{sys.executable}\nimport sys, time, os\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n{body}\n"
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("print('rpgt', end='', flush=True); time.sleep(60)", ""),
        ("print('rpg', end='', flush=True); time.sleep(60)", "no timer interrupts"),
        ("print('rp', end='', flush=True)", "paging is switched on (QEMU ended with status 0)"),
        ("print('r', end='', flush=True); time.sleep(60)", "before protected mode"),
        ("time.sleep(60)", "did not get as far as the boot sector"),
        (
            "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)",
            "did not get as far",
        ),
        ("print('zz', flush=True); time.sleep(60)", "the guest said 'zz"),
        (
            "sys.exit('qemu: failed to initialize kvm: Permission denied')",
            "failed to initialize kvm: Permission denied",
        ),
    ],
)
def test_how_a_trial_ends(tmp_path: Path, body: str, why: str) -> None:
    started = time.monotonic()
    result = kvm.try_sector(program(tmp_path, body), "kvm", 0.7)
    assert time.monotonic() - started < 1.5
    assert (why in result) if why else result == ""
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


def test_missing_qemu_is_named(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="'qemu-none' is not installed"):
        kvm.try_sector("qemu-none", "kvm", 1)


def trial(name: str, why: str, runs: list[str], failed_key: str = "") -> kvm.Trial:
    def run(seconds: float) -> str:
        assert 0 < seconds <= kvm.SECONDS
        runs.append(name)
        return why

    return kvm.Trial(name, f"host / {name}", run, failed_key)


def test_answer_is_remembered(tmp_path: Path) -> None:
    memory, runs = tmp_path / "sub" / "kvm.json", list[str]()
    first = kvm.usable([trial("sector", "", runs), trial("kernel", "", runs)], memory)
    again = kvm.usable([trial("sector", "x", runs), trial("kernel", "x", runs)], memory)
    assert (first.accel, first.remembered, again.accel, again.remembered) == (
        "kvm",
        False,
        "kvm",
        True,
    )
    assert runs == ["sector", "kernel"]


def test_first_failure_ends_it_and_is_remembered(tmp_path: Path) -> None:
    memory, runs = tmp_path / "kvm.json", list[str]()
    for remembered in (False, True):
        answer = kvm.usable([trial("sector", "it hangs", runs), trial("kernel", "", runs)], memory)
        assert answer == kvm.Answer("tcg", "sector: it hangs", remembered)
    assert runs == ["sector"]


def test_broken_kernel_does_not_speak_for_the_next_one(tmp_path: Path) -> None:
    memory, runs = tmp_path / "kvm.json", list[str]()
    assert kvm.usable([trial("kernel", "mute", runs, " / 1")], memory).accel == "tcg"
    assert kvm.usable([trial("kernel", "mute", runs, " / 1")], memory).accel == "tcg"
    assert kvm.usable([trial("kernel", "", runs, " / 2")], memory).accel == "kvm"
    assert kvm.usable([trial("kernel", "never run", runs, " / 3")], memory).accel == "kvm"
    assert runs == ["kernel", "kernel"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'"x"', b'{"a": 1}', b'{"a": {"works": true}}', b"\xff\xfe"]
)
def test_damaged_memory_is_only_forgotten(tmp_path: Path, content: bytes) -> None:
    memory, runs = tmp_path / "kvm.json", list[str]()
    memory.write_bytes(content)
    assert kvm.usable([trial("sector", "", runs)], memory).accel == "kvm"
    assert json.loads(memory.read_text()) == {"host / sector": {"works": True, "reason": ""}}


@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
def test_memory_that_is_no_file_is_only_forgotten(tmp_path: Path, kind: str) -> None:
    memory, runs = tmp_path / "kvm.json", list[str]()
    (tmp_path / "other").write_text('{"host / sector": {"works": false, "reason": "planted"}}')
    if kind == "fifo":
        os.mkfifo(memory)
    elif kind == "folder":
        memory.mkdir()
    else:
        memory.symlink_to("other")
    assert kvm.usable([trial("sector", "", runs)], memory).accel == "kvm"
    assert "planted" in (tmp_path / "other").read_text()


def test_what_a_trial_says_is_shown_without_escapes(tmp_path: Path) -> None:
    answer = kvm.usable([trial("sector", "\x1b]0;x\x07 died", [])], tmp_path / "kvm.json")
    assert answer.reason == "sector: \\x1b]0;x\\x07 died"


def test_memory_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert kvm.usable([trial("sector", "", [])], tmp_path / "file" / "kvm.json").accel == "kvm"


def test_memory_does_not_grow_for_ever(tmp_path: Path) -> None:
    for number in range(50):
        kvm.usable([trial(f"t{number}", "", [])], tmp_path / "kvm.json")
    assert list(json.loads((tmp_path / "kvm.json").read_text()))[-1] == "host / t49"
    assert len(json.loads((tmp_path / "kvm.json").read_text())) == 20


def test_settings_are_obeyed_without_a_trial(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(kvm, "usable", lambda *args: pytest.fail("tried"))
    monkeypatch.setattr(kvm, "DEVICE", tmp_path / "kvm")
    choose = lambda setting: kvm.choose(setting, "i386", "qemu-none", tmp_path / "m")  # noqa: E731
    assert choose("tcg").accel == "tcg"
    assert choose("auto") == kvm.Answer("tcg", f"there is no {tmp_path / 'kvm'}")
    with pytest.raises(PiggyError, match="accel=kvm, but there is no"):
        choose("kvm")
    (tmp_path / "kvm").write_text("")
    assert choose("kvm").accel == "kvm"
    with pytest.raises(PiggyError, match="accel=fast: not an accelerator"):
        choose("fast")


@pytest.mark.parametrize(
    ("host", "arch", "tried"),
    [
        ("x86_64", "i386", True),
        ("x86_64", "x86_64", True),
        ("i686", "i386", True),
        ("i686", "x86_64", False),
        ("x86_64", "arm", False),
        ("aarch64", "i386", False),
        ("aarch64", "arm", False),
        ("x86_64", "mips", False),
    ],
)
def test_kvm_is_tried_only_for_the_hosts_own_kind(
    tmp_path: Path, monkeypatch, host: str, arch: str, tried: bool
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(kvm, "obstacle", lambda: "")
    monkeypatch.setattr(
        kvm, "usable", lambda trials, memory: asked.append("x") or kvm.Answer("kvm", "")
    )
    real = os.uname()
    monkeypatch.setattr(kvm.os, "uname", lambda: os.uname_result((*real[:4], host)))
    answer = kvm.choose("auto", arch, "qemu-none", tmp_path / "m")
    assert (answer.accel, bool(asked)) == (("kvm", True) if tried else ("tcg", False))


def test_kernel_trial_wants_a_word_on_the_console(tmp_path: Path) -> None:
    kernel = tmp_path / "bzImage"
    kernel.write_text("k")
    speaks = program(tmp_path, "print('Linux version', flush=True); time.sleep(60)")
    assert kvm.kernel_trial(speaks, kernel, [speaks]).run(1) == ""
    warns = program(tmp_path, "print('qemu: warning', file=sys.stderr, flush=True); time.sleep(60)")
    assert kvm.kernel_trial(warns, kernel, [warns]).run(0.5) == "the kernel says nothing"
    before = kvm.kernel_trial(speaks, kernel, [speaks]).failed_key
    kernel.write_text("kernel")
    assert kvm.kernel_trial(speaks, kernel, [speaks]).failed_key != before
