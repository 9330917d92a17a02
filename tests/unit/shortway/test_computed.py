"""What make computes from the content of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.kbuild.saved import Saved, Unfamiliar, unescaped
from tasks.shortway import computed

LOADER = "arch/x86/boot/compressed"


def saved(text: str, target: str = f"{LOADER}/vmlinux.bin.xz") -> Saved:
    return Saved(target, f"cmd_{target} :=", text, unescaped(text))


@pytest.fixture
def obj(tmp_path: Path) -> Path:
    (tmp_path / LOADER).mkdir(parents=True)
    (tmp_path / LOADER / "vmlinux.bin").write_bytes(b"x" * 0x01020304)
    (tmp_path / LOADER / "vmlinux.relocs").write_bytes(b"x" * 0xFE)
    (tmp_path / "System.map").write_text(
        "c0100000 T _text\nc0200000 B __bss_start\nc0200010 b other\nc0201004 A __bss_stop\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("files", "size"),
    [
        (f"{LOADER}/vmlinux.bin", r"\\004\\003\\002\\001"),
        (f"{LOADER}/vmlinux.bin {LOADER}/vmlinux.relocs", r"\\002\\004\\002\\001"),
    ],
)
@pytest.mark.parametrize("program", ["sh xz_wrap.sh", "lz4 -l -9 - -", "lzma -9", "zstd -22 | cat"])
def test_size_append(obj: Path, files: str, size: str, program: str) -> None:
    text = "{ cat %s | %s; printf %s; } > vmlinux.bin.xz"
    old = saved(text % (files, program, r"\\310\\250\\050\\000"))
    assert computed.current(old, obj) == saved(text % (files, program, size))
    now = saved(text % (files, program, size))
    assert computed.current(now, obj) == now


@pytest.mark.parametrize(
    "text",
    [
        r"{ cat a | xz; cat b | xz; printf \\310\\250\\050\\000; } > x",
        r"xz < a > x; printf \\310\\250\\050\\000 >> x",
        r"{ cat missing | xz; printf \\310\\250\\050\\000; } > x",
    ],
)
def test_other_forms_of_a_size_are_makes(obj: Path, text: str) -> None:
    with pytest.raises(Unfamiliar):
        computed.current(saved(text), obj)


def test_the_size_of_bss(obj: Path) -> None:
    text = "ld --defsym _kernel_bss_size=%s -o arch/arm/boot/compressed/vmlinux $$ORIGIN"
    target = "arch/arm/boot/compressed/vmlinux"
    assert computed.current(saved(text % 7, target), obj) == saved(text % 0x1004, target)
    (obj / "System.map").unlink()
    with pytest.raises(Unfamiliar, match=r"\.bss"):
        computed.current(saved(text % 7, target), obj)


def test_outside_of_the_loader_nothing_is_computed(obj: Path) -> None:
    old = saved(r"{ cat a | xz; printf \\310\\250\\050\\000; } > x", "usr/x")
    assert computed.current(old, obj) is old


KBSS = r"""KBSS_SZ = $(shell echo $$(($$($(NM) %s | \
		sed -n -e 's/^\([^ ]*\) [%s] __bss_start$$/-0x\1/p' \
		-e 's/^\([^ ]*\) [%s] __bss_stop$$/+0x\1/p')%s )) )"""
SIZE = r"""size_append = printf $(shell						\
dec_size=0;								\
for F in $(real-prereqs); do					\
	fsize=$$($(CONFIG_SHELL) $(srctree)/scripts/file-size.sh $$F);	\
	dec_size=$$(expr $$dec_size + $$fsize);				\
done;									\
printf "%08x\n" $$dec_size |						\
	sed 's/\(..\)/\1 /g' | {					\
		read ch0 ch1 ch2 ch3;					\
		for ch in $$ch3 $$ch2 $$ch1 $$ch0; do			\
			printf '%s%03o' '\\' $$((0x$$ch)); 		\
		done;							\
	}								\
)
"""


def test_another_formula_for_bss_is_makes(tmp_path: Path) -> None:
    file = tmp_path / "arch/arm/boot/compressed/Makefile"
    file.parent.mkdir(parents=True)
    file.write_text(KBSS % ("vmlinux", "ABD", "ABD", " + 4096") + "\n")
    with pytest.raises(Unfamiliar, match="asks the shell: KBSS_SZ"):
        computed.check([str(file)], str(tmp_path))


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (SIZE, True),
        (SIZE.replace("'\\\\'", "'\\\\\\\\'"), True),
        (SIZE.replace("%08x", "%16x"), False),
        (SIZE.replace("dec_size=0", "dec_size=4"), False),
    ],
)
def test_another_formula_for_the_size_is_makes(tmp_path: Path, text: str, known: bool) -> None:
    file = tmp_path / "scripts/Makefile.lib"
    file.parent.mkdir()
    file.write_text(text)
    assert not computed.check([str(file)], str(tmp_path), packs=False)
    if known:
        assert not computed.check([str(file)], str(tmp_path))
    else:
        with pytest.raises(Unfamiliar, match=r"Makefile.lib has another size_append"):
            computed.check([str(file)], str(tmp_path))


@pytest.mark.parametrize(
    ("line", "asks"),
    [
        (KBSS % ("$(obj)/../../../../vmlinux", "ABD", "ABD", ""), False),
        (KBSS % ("vmlinux", "AB", "AB", ""), False),
        (KBSS.replace("KBSS_SZ", "ADDRESS") % ("vmlinux", "AB", "AB", ""), True),
        ("ADDRESS = $(shell echo $$(($$($(NM) vmlinux))))", True),
        ("add_hex = $(shell printf 0x%x $$(( $(1) + $(2) )) )", False),
        ("# see $(shell ls)", False),
        ('\tif [ "$(X)" != "" ]; then true; fi', False),
        ("ADDRESS := $(shell nm vmlinux)", True),
        ("ADDRESS := ${shell nm vmlinux}", True),
        ("ADDRESS != nm vmlinux", True),
    ],
)
@pytest.mark.parametrize(
    ("name", "matters"),
    [
        ("arch/arm/boot/compressed/Makefile", True),
        ("arch/arm/boot/Makefile.more", True),
        ("kernel/Makefile", False),
        ("arch/arm/boot/main.c", False),
    ],
)
def test_what_a_boot_makefile_asks(
    tmp_path: Path, line: str, asks: bool, name: str, matters: bool
) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.write_text(f"a := b\n{line}\n")
    inputs = [str(file), f"{file.parent}/", str(tmp_path / "kernel/Kconfig")]
    if asks and matters:
        with pytest.raises(Unfamiliar, match=r"Makefile.* asks the shell: ADDRESS"):
            computed.check(inputs, str(tmp_path))
    else:
        computed.check(inputs, str(tmp_path))


LOADER_LINES = "vmlinux: piggy.o\n\t@$(check_for_multiple_zreladdr)\n\t$(call if_changed,ld)\n"


@pytest.mark.parametrize(
    ("line", "asked"),
    [("", False), ("\t@$(check_for_bad_syms)\n", True), ("\t@$(kecho) '  Kernel: $@'\n", False)],
)
def test_known_checks_of_a_target(tmp_path: Path, line: str, asked: bool) -> None:
    file = tmp_path / "arch/arm/boot/compressed/Makefile"
    file.parent.mkdir(parents=True)
    file.write_text(LOADER_LINES + line)
    assert computed.check([str(file)], str(tmp_path)) is asked


def test_an_unknown_check_of_a_target_is_makes(tmp_path: Path) -> None:
    file = tmp_path / "arch/arm/boot/compressed/Makefile"
    file.parent.mkdir(parents=True)
    file.write_text(f"{LOADER_LINES}\t$(check_for_more)\n")
    with pytest.raises(Unfamiliar, match=r"a recipe of arch.* has \$\(check_for_more\)"):
        computed.check([str(file)], str(tmp_path))


@pytest.mark.parametrize(
    ("symbols", "bad"),
    [("00001000 B _edata\n", False), ("00001000 b local\n", True), ("00000000 c x\n", True)],
)
def test_local_symbols_of_a_loader(tmp_path: Path, symbols: str, bad: bool) -> None:
    nm = tmp_path / "nm"
    nm.write_text(f"#!/bin/sh\nprintf '{symbols}'\n".replace("\n'", "\\n'"))
    nm.chmod(0o755)
    assert computed.bad_symbols(tmp_path, "vmlinux", {"NM": str(nm)}) is bad


@pytest.mark.parametrize(
    ("target", "is_one"),
    [
        ("arch/arm/boot/compressed/vmlinux", True),
        ("arch/arm/boot/compressed/piggy_data", False),
        ("vmlinux", False),
    ],
)
def test_which_target_is_the_loader(target: str, is_one: bool) -> None:
    assert computed.is_loader(target) is is_one
