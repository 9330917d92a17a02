from __future__ import annotations

import os
from pathlib import Path

import pytest
from cmd_files import put

from tasks.kbuild import module_inputs, trace
from tasks.kbuild.trace import Said, Trace


class Kernel:
    """A tree and its object folder with the records of what was made."""

    def __init__(self, top: Path) -> None:
        self.top, self.tree, self.obj = top, top / "tree", top / "obj"
        self.obj.mkdir()
        self.said = Said({}, {})

    def made(self, target: str, command: str, *needs: str) -> None:
        """Have a target with its .cmd file; a compiler listed the needs."""
        folder, name = os.path.split(target)
        listed = "".join(f" \\\n  {need}" for need in needs)
        deps = f"\ndeps_{target} :={listed}\n" if needs else ""
        put(self.obj / folder / f".{name}.cmd", f"savedcmd_{target} := {command}\n{deps}")
        put(self.obj / target)

    def source(self, name: str, text: str = "") -> str:
        return str(put(self.tree / name, text))

    def of_tree(self) -> set[str]:
        """What the modules are made from, files of the tree by their names there."""
        trace.write(self.obj, Trace(goals={"modules": self.said}))
        found = module_inputs.of_tree(self.obj, self.tree, 0)
        files = {name for name in found if not name.endswith(("/", "/*"))}
        return {os.path.relpath(name, self.tree) for name in files}


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_what_a_module_is_made_from(kernel: Kernel) -> None:
    """By the compiler's list, by the words of a command without one, and by make."""
    listed = [kernel.source("d/part.c"), "d/table.h", "include/generated/x.h"]
    kernel.made("d/part.o", "gcc -DMODULE -c -o d/part.o part.c", *listed)
    kernel.made("d/m.o", "ld -r -o d/m.o d/part.o d/blob.o")
    kernel.made("d/m.ko", "ld -T scripts/module.lds -o d/m.ko d/m.o lib/extra.o lib/lib.a")
    kernel.made("d/blob.o", "as -o d/blob.o d/blob.S", kernel.source("d/blob.S"))
    kernel.made("lib/extra.o", "gcc -o lib/extra.o extra.S", kernel.source("lib/extra.S"))
    kernel.made("lib/lib.a", "ar lib/lib.a lib/other.o")
    kernel.made("lib/other.o", "gcc -o lib/other.o other.c", kernel.source("lib/other.c"))
    kernel.made("d/table.h", "d/gen > d/table.h")
    kernel.made("d/gen", "gcc -o d/gen d/gen.c", kernel.source("d/gen.c"))
    kernel.made("include/generated/x.h", "k/x > x.h", kernel.source("k/x.c"))
    kernel.said.edges["d/table.h"] = [kernel.source("tables/numbers"), "d/more"]
    kernel.said.edges["d/more"] = [kernel.source("tables/more")]
    kernel.said.edges["kernel/x.o"] = [kernel.source("tables/other")]
    kernel.said.edges["vmlinux"] = ["kernel/x.o"]
    kernel.said.edges["d/m.ko"] = ["vmlinux", "d/m.o"]  # as of BTF
    tables = {"tables/numbers", "tables/more"}
    assert kernel.of_tree() == {"d/part.c", "d/blob.S", "lib/extra.S", "d/gen.c", *tables}


def test_what_no_record_tells_how_it_was_made(kernel: Kernel) -> None:
    """Edges of an earlier make count; without any, all programs of the folder do."""
    kernel.made("d/m.o", "gcc -DMODULE -c -o d/m.o m.c", kernel.source("d/m.c"), "d/table.h")
    kernel.made("d/gen", "gcc -o d/gen d/gen.c", kernel.source("d/gen.c"))
    kernel.made("d/other.o", "gcc -c -o d/other.o other.c", kernel.source("d/other.c"))
    put(kernel.obj / "d/table.h")
    assert kernel.of_tree() == {"d/m.c", "d/gen.c"}
    kernel.said.earlier["d/table.h"] = [kernel.source("tables/numbers")]
    assert kernel.of_tree() == {"d/m.c", "tables/numbers"}


def test_all_makefiles_that_were_read(kernel: Kernel) -> None:
    """What those name is an input, too, if they are in a module's folder or above it."""
    kernel.made("a/b/m.ko", "ld -o a/b/m.ko")
    for folder in ("a", "c", "c/d"):
        kernel.source(f"{folder}/names", "x")
        text = f"x := $(shell cat $(srctree)/{folder}/names)\n"
        kernel.said.makefiles[kernel.source(f"{folder}/flags.mk", text)] = [folder]
    assert kernel.of_tree() == {"a/flags.mk", "c/flags.mk", "c/d/flags.mk", "a/names"}
    kernel.said.makefiles[str(kernel.tree / "c/flags.mk")] = ["c", "."]
    assert "c/names" in kernel.of_tree()


def test_what_an_external_module_is_made_with(kernel: Kernel) -> None:
    place = kernel.top / "module"
    work, header = place / "mine", kernel.source("include/x.h")
    put(work / "Makefile", "ccflags-$(CONFIG_OWN) += -DX\ninclude $(srctree)/drivers/x.mk\n")
    named = kernel.source("drivers/x.mk")
    put(work / "m.c")
    put(
        work / ".m.o.cmd",
        f"savedcmd_{work}/m.o := gcc -o {work}/m.o lib/extra.o Module.symvers\n"
        f"source_{work}/m.o := {work}/m.c\ndeps_{work}/m.o := {header} include/generated/a.h \\\n"
        "  include/generated/autoconf.h $(wildcard include/config/IN_HEADER)\n",
    )
    for name in ("lib/extra.o", "include/generated/a.h", "include/generated/autoconf.h"):
        put(kernel.obj / name)
    for name in ("Module.symvers", "scripts/mod/modpost.o", "scripts/module.lds"):
        put(kernel.obj / name)
    for name in ("mod/modpost", "kconfig/conf", "basic/fixdep"):
        put(kernel.obj / "scripts" / name).chmod(0o755)
    arch = kernel.source("arch/x/Makefile", "ifdef CONFIG_IN_ARCH\n")
    kernel.said.makefiles[arch] = ["."]
    kernel.said.makefiles[kernel.source("kernel/Makefile", "ifdef CONFIG_NO\n")] = ["kernel"]
    trace.write(kernel.obj, Trace(goals={"vmlinux": kernel.said}))
    symbols = ("IN_HEADER", "OWN", "IN_ARCH", "NO")
    assert module_inputs.of_outside(kernel.obj, kernel.tree, place, work, symbols) == sorted(
        [
            arch,
            header,
            named,
            "CONFIG_IN_ARCH",
            "CONFIG_IN_HEADER",
            "CONFIG_OWN",
            *(
                str(kernel.obj / name)
                for name in (
                    "include/generated/a.h",
                    "lib/extra.o",
                    "scripts/mod/modpost",
                    "scripts/module.lds",
                )
            ),
        ]
    )
