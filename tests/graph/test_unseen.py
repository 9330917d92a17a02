"""What make does not look at, and an image is made from: real doit on the fake kernel, held against
a make from nothing."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playground import Playground, finish
from test_objects import PANIC, STRING, elsewhere
from test_shortway import as_make_does

from tasks.system import files

MAKEFILE = "lib/Makefile"
LINK = "scripts/link-vmlinux.sh"


def put(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@contextlib.contextmanager
def changed(play: Playground, tmp_path: Path) -> Iterator[None]:
    """Build, have something changed by the body of a `with`, and build again: as make does from
    nothing, and with nothing left to do."""
    play.doit("bzImage")
    assert as_make_does(play, tmp_path)
    yield
    play.doit("bzImage")
    assert as_make_does(play, tmp_path)
    assert play.doit("bzImage").ran == []


def test_a_script_that_the_link_calls(built: Playground, tmp_path: Path) -> None:
    put(built.linux / "scripts/mksysmap", "#!/bin/sh\n$NM -n $1 > $2\n")
    built.edit(
        built.linux / LINK,
        "$NM -n vmlinux >System.map",
        "export NM; sh ${srctree}/scripts/mksysmap vmlinux System.map",
    )
    with changed(built, tmp_path):
        put(built.linux / "scripts/mksysmap", "#!/bin/sh\n$NM -n $1 | grep -v printk > $2\n")


def test_a_script_that_the_link_calls_while_nothing_is_known(
    built: Playground, tmp_path: Path
) -> None:
    """After 'doit forget' no reason names the script, and make does not look at it."""
    put(built.linux / "scripts/mksysmap", "#!/bin/sh\n$NM -n $1 > $2\n")
    built.edit(
        built.linux / LINK,
        "$NM -n vmlinux >System.map",
        "export NM; sh ${srctree}/scripts/mksysmap vmlinux System.map",
    )
    with changed(built, tmp_path):
        put(built.linux / "scripts/mksysmap", "#!/bin/sh\n$NM -n $1 | grep -v printk > $2\n")
        built.doit("forget", "vmlinux")


def test_a_script_that_a_command_calls(built: Playground, tmp_path: Path) -> None:
    put(built.linux / "scripts/gz_wrap.sh", "#!/bin/sh\ngzip -n -9\n", 0o755)
    for name in ("scripts/Kbuild.include", "scripts/Makefile.build"):
        path = built.linux / name
        wrapped = r"\1 cat $(real-prereqs) | $(srctree)/scripts/gz_wrap.sh > $@"
        path.write_text(re.sub(r"(cmd_gzip\s*=).*", wrapped, path.read_text()))
    with changed(built, tmp_path):
        put(built.linux / "scripts/gz_wrap.sh", "#!/bin/sh\ngzip -n -1\n", 0o755)


def test_a_script_beside_the_sources(built: Playground, tmp_path: Path) -> None:
    """As gen_vdso_offsets.sh, which only the command names."""
    script = "#!/bin/sh\necho '#define GEN {}'\n"
    put(built.linux / "lib/gen.sh", script.format(1), 0o755)
    built.append(
        built.linux / MAKEFILE,
        "cmd_gen = $(srctree)/$(src)/gen.sh > $@\n$(obj)/string.o: $(obj)/gen.h\n"
        "$(obj)/gen.h: FORCE\n\t$(call if_changed,gen)\ntargets += gen.h\n",
    )
    built.append(built.linux / STRING, '#include "gen.h"\nint gen = GEN;\n')
    with changed(built, tmp_path):
        put(built.linux / "lib/gen.sh", script.format(2), 0o755)


def test_a_name_of_a_symbol_that_another_macro_puts_together(
    built: Playground, tmp_path: Path
) -> None:
    built.store_size = "1G"
    built.append(
        built.linux / PANIC,
        "#define C2(a, b) a##b\n#define C3(a, b) C2(a, b)\n#define S2(x) #x\n#define S3(x) S2(x)\n"
        "const char cfg[] __attribute__((used)) = S3(C3(CONFIG_, EXTRA));\n",
    )
    with changed(built, tmp_path):
        built.append("configs/kernel/fake-base.config", "CONFIG_EXTRA=y\n")
    copy = elsewhere(built, tmp_path)
    copy.doit("bzImage")
    assert as_make_does(copy, tmp_path)


def test_a_name_of_a_symbol_that_a_makefile_puts_together(
    built: Playground, tmp_path: Path
) -> None:
    built.append(
        built.linux / MAKEFILE,
        "ccflags-y += $(foreach s,$(patsubst %,CONFIG_%,EXPERT),-DEXP=1$($(s)))\n",
    )
    built.append(
        built.linux / STRING, "#define Q(x) #x\n#define QQ(x) Q(x)\nint expv = sizeof(QQ(EXP));\n"
    )
    with changed(built, tmp_path):
        built.append("configs/kernel/fake-base.config", "CONFIG_EXPERT=y\n")


@pytest.mark.parametrize(
    ("flags", "header"),
    [('-I"{}/lib/q1" -I"{}/lib/q2"', "zq.h"), ("-I{}/lib/q1 -I{}/lib/q2", "z.inc")],
)
def test_a_file_that_hides_another(
    built: Playground, tmp_path: Path, flags: str, header: str
) -> None:
    """In a folder whose name is in quotes; and one that is not called .h."""
    built.store_size = "1G"
    put(built.linux / "lib/q1/keep", "")
    put(built.linux / "lib/q2" / header, "#define ZQ 1\n")
    built.append(built.linux / MAKEFILE, f"ccflags-y += {flags.format(*['$(srctree)'] * 2)}\n")
    built.append(built.linux / STRING, f"#include <{header}>\nint zq = ZQ;\n")
    with changed(built, tmp_path):
        put(built.linux / "lib/q1" / header, "#define ZQ 2\n")
    copy = elsewhere(built, tmp_path)
    copy.doit("bzImage")
    assert as_make_does(copy, tmp_path)


def test_what_only_the_text_of_a_source_names(built: Playground, tmp_path: Path) -> None:
    """Each edit compiles its object again, and brings what make does from nothing. (A header that a
    source asks for is in security/landlock/setup.c.)"""
    tree, lib = built.linux, built.linux / "lib"
    built.store_size = "1G"
    put(tmp_path / "outside/keep", "")
    put(lib / "deep/folder/keep", "")
    put(lib / "more/foo/zz.h", "#define ZZ 1\n")
    (lib / "link").symlink_to("deep/folder")
    put(lib / "blob.bin", "one\n")
    put(lib / "deep/blob.bin", "one\n")
    put(tree / "include/blob.bin", "three\n")
    put(tree / "include/x.s", '.INCBIN "blob.bin"\n')
    looked_in = ("lib/first", "lib/link", "lib", "lib/more/foo")
    flags = [f"-I$(srctree)/{folder}" for folder in looked_in]
    built.append(tree / MAKEFILE, f"ccflags-y += -I{tmp_path}/outside {' '.join(flags)}\n")
    built.append(
        tree / STRING,
        "#include <zz.h>\nint zz = ZZ;\n"
        '#if __has_include("errata/nine.h")\nint asked;\n#endif\n'
        '#define BLOB(name) asm(".incbin\\t\\"" name "\\"")\nBLOB("blob.bin");\n'
        'asm(".incbin \\"../blob.bin\\"\\n.include \\"x.s\\"");\n',
    )
    edits: list[Callable[[], object]] = [
        lambda: put(lib / "blob.bin", "two\n"),
        lambda: put(lib / "deep/blob.bin", "two\n"),  # above where the link leads
        (lib / "blob.bin").unlink,  # include/ has one
        lambda: put(lib / "errata/nine.h", ""),
        (lib / "errata/nine.h").unlink,
        lambda: put(lib / "first/zz.h", "#define ZZ 2\n"),
        lambda: put(tmp_path / "outside/zz.h", "#define ZZ 3\n"),
    ]
    built.doit("bzImage")
    others = {path: files.changed(path) for path in (built.obj / "kernel").glob("*.o")}
    for number, edit in enumerate(edits):
        edit()
        assert built.doit("bzImage").ran, number
        assert as_make_does(built, tmp_path), number
    put(lib / "unrelated.h", "")
    made = files.changed(built.obj / "lib/string.o")
    built.doit("bzImage")
    assert files.changed(built.obj / "lib/string.o") == made
    assert {path: files.changed(path) for path in others} == others
    built.append(tree / PANIC, "int other;\n")
    built.doit("bzImage")
    built.edit(tree / PANIC, "int other;\n", "")
    assert "vmlinux" in built.doit("bzImage").restored  # its results are kept
    copy = elsewhere(built, tmp_path)
    put(copy.linux / "include/blob.bin", "elsewhere\n")
    copy.doit("bzImage")
    assert as_make_does(copy, tmp_path)


def test_a_name_that_is_no_text(built: Playground, tmp_path: Path) -> None:
    with (built.linux / STRING).open("ab") as stream:
        stream.write(b'#define NAME ".incbin a\xff.bin"\n/* .incbin "b\xff.bin" */\n')
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)


def test_an_interrupted_make_and_a_file_that_only_the_assembler_reads(
    built: Playground, tmp_path: Path
) -> None:
    """Make finds the object up to date, and the ledger does not know yet what it was made from."""
    put(built.linux / "include/blob.bin", "one\n")
    built.append(built.linux / "kernel/Makefile", "# make decides\n")
    built.append(built.linux / STRING, 'asm(".incbin \\"blob.bin\\"");\n')
    built.append(built.linux / PANIC, "int other;\n")
    archive = built.obj / "lib/built-in.a"
    made = files.changed(archive)
    built.pause("panic.o")
    process = built.start("jobs=2", "bzImage")
    built.reached("panic.o")
    until = time.monotonic() + 120
    while files.changed(archive) <= made:  # its object's recipe has ended; else make removes that
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    finish(process)
    built.resume()
    assert (built.obj / "lib/string.o").exists()
    put(built.linux / "include/blob.bin", "two\n")
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)


def test_a_header_found_above_a_folder_of_I(built: Playground, tmp_path: Path) -> None:
    """#include "../zz.h" leads to more/zz.h, until extra/zz.h comes."""
    built.store_size = "1G"
    put(built.linux / "more/zz.h", "#define ZZ 1\n")
    put(built.linux / "more/sub/keep", "")
    put(built.linux / "extra/first/keep", "")
    flags = "-I$(srctree)/extra/first -I$(srctree)/more/sub"
    built.append(built.linux / MAKEFILE, f"ccflags-y += {flags}\n")
    built.append(built.linux / STRING, '#include "../zz.h"\nint zz = ZZ;\n')
    with changed(built, tmp_path):
        put(built.linux / "extra/zz.h", "#define ZZ 2\n")


def test_a_makefile_outside_of_the_tree(built: Playground, tmp_path: Path) -> None:
    outside = put(tmp_path / "out.mk", "ccflags-y += -DOUT=1\n")
    built.append(built.linux / MAKEFILE, f"-include {outside}\n")
    built.append(built.linux / STRING, "int out = OUT;\n")
    with changed(built, tmp_path):
        put(outside, "ccflags-y += -DOUT=2\n")


def test_a_script_that_busybox_takes_in(built: Playground) -> None:
    box = built.top / "build/src/busybox"
    script = put(box / "applets_sh/nologin", "echo one\n")
    built.edit(
        box / "Makefile",
        "$(objs): include/autoconf.h\n",
        "$(objs): include/autoconf.h include/embedded_scripts.h\n"
        "include/embedded_scripts.h: $(wildcard $(srctree)/applets_sh/*)\n"
        '\t@printf \'#define EMB "%s"\\n\' "`cat $^`" > $@\n',
    )
    built.append(
        box / "coreutils/cat.c",
        '#include "embedded_scripts.h"\nconst char emb[] __attribute__((used)) = EMB;\n',
    )
    built.doit("busybox")
    assert b"echo one" in (built.images / "busybox").read_bytes()
    put(script, "echo two\n")
    built.doit("busybox")
    assert b"echo two" in (built.images / "busybox").read_bytes()


def test_half_a_file_without_a_record(built: Playground, tmp_path: Path) -> None:
    """doit alone is killed while a recipe writes a header, and make goes on or ends."""
    put(built.linux / "lib/table.txt", "")
    built.append(
        built.linux / MAKEFILE,
        "$(obj)/string.o: $(obj)/table.h\n"
        "$(obj)/table.h: $(srctree)/$(src)/table.txt\n"
        "\t@echo '#define T1 1' > $@; sleep 1; echo '#define T2 2' >> $@\n",
    )
    built.append(built.linux / STRING, '#include "table.h"\n#ifdef T2\nint t2 = 1;\n#endif\n')
    process, table = built.start("bzImage"), built.obj / "lib/table.h"
    until = time.monotonic() + 120
    while not (table.exists() and table.stat().st_size):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)
    assert built.doit("bzImage").ran == []
