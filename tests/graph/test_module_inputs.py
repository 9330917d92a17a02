"""What modules are made from besides their sources: makefiles, generated sources, programs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from playground import Playground

BASE = "configs/kernel/fake-base.config"
# The header's rule has no FORCE, as that of lib/crc32table.h: make looks at it when it makes it.
# As much of Kbuild's as these tests need: drivers/mod is built after vmlinux, and has the only one.
MODULES = """\
PHONY += modules modules_install
export KBUILD_CFLAGS_MODULE
modules: vmlinux
	@$(MAKE) $(build)=drivers/above
	@cat drivers/above/order > modules.order; echo > Module.symvers
modules_install:
	@mkdir -p $(INSTALL_MOD_PATH)/lib/modules/6.1.0
	@for o in $$(cat modules.order); do cp $${o%.o}.ko $(INSTALL_MOD_PATH)/lib/modules/6.1.0; done

mrproper:
"""
ABOVE = """\
subdir-y := mod
export SUBDIR_CCFLAGS := -DABOVE='"above 1"'
include $(srctree)/drivers/above/flags.mk
always-y := order
$(obj)/order: FORCE
	@for d in $(subdir-y); do echo drivers/above/$$d/hello.o; done > $@
"""
FOLDER = """\
always-y := hello.ko
targets := hello.o hello.ko table.h
hostprogs := gen
ccflags-y := -DMODULE $(KBUILD_CFLAGS_MODULE) $(SUBDIR_CCFLAGS) $(INCLUDED)
quiet_cmd_ld_ko_o = LD [M] $@
      cmd_ld_ko_o = $(LD) -r -o $@ $<
$(obj)/hello.ko: $(obj)/hello.o FORCE
	$(call if_changed,ld_ko_o)
quiet_cmd_gen = GEN     $@
      cmd_gen = { $<; cat $(srctree)/drivers/list; } > $@
$(obj)/table.h: $(obj)/gen $(srctree)/drivers/list
	$(call cmd,gen)
$(obj)/hello.o: $(obj)/table.h
"""
HELLO = """\
#include "table.h"
const char *hello[] = { ARCH, ABOVE, INCLUDED, TABLE, LIST };
"""
GEN = """\
#include <stdio.h>
int main(void) { puts("#define TABLE \\"table 1\\""); return 0; }
"""


@pytest.fixture
def modular(built: Playground) -> Playground:
    """The project with a kernel that has a module."""
    tree = built.linux
    built.edit(tree / "Makefile", "mrproper:\n", MODULES)
    built.append(tree / "init/Kconfig", '\nconfig MODULES\n\tbool "Modules"\n')
    built.append(tree / "arch/x86/Makefile", "KBUILD_CFLAGS_MODULE += -DARCH='\"arch 1\"'\n")
    (tree / "drivers/above/mod").mkdir(parents=True)
    for name, text in {
        "Makefile": ABOVE,
        "flags.mk": "export INCLUDED := -DINCLUDED='\"included 1\"'\n",
        "mod/Makefile": FOLDER,
        "mod/hello.c": HELLO,
        "mod/gen.c": GEN,
    }.items():
        (tree / "drivers/above" / name).write_text(text)
    (tree / "drivers/list").write_text('#define LIST "list 1"\n')
    built.append(BASE, "CONFIG_MODULES=y\n")
    return built


def packed(play: Playground) -> bytes:
    return (play.images / "modules.tar").read_bytes()


EDITS = {
    "arch": "arch/x86/Makefile",
    "above": "drivers/above/Makefile",
    "included": "drivers/above/flags.mk",
    "list": "drivers/list",
    "table": "drivers/above/mod/gen.c",
}


def test_each_edit_is_seen(modular: Playground) -> None:
    modular.doit("modules")
    assert modular.doit("modules").ran == []
    for what, name in EDITS.items():
        assert f"{what} 1".encode() in packed(modular)
        modular.edit(modular.linux / name, f"{what} 1", f"{what} 2")
        ran = modular.doit("modules").ran
        assert f"{what} 2".encode() in packed(modular), (what, ran)
        assert modular.doit("modules").ran == []


def test_the_store_tells_them_apart(modular: Playground) -> None:
    modular.store_size = "100M"
    for what, name in EDITS.items():
        modular.doit("modules")
        modular.edit(modular.linux / name, f"{what} 1", f"{what} 2")
        (modular.images / "modules.tar").unlink()
        result = modular.doit("modules")
        assert f"{what} 2".encode() in packed(modular), (what, result.restored)
        modular.edit(modular.linux / name, f"{what} 2", f"{what} 1")
        assert "modules" in modular.doit("modules").restored


def test_what_vmlinux_alone_has_is_no_input(modular: Playground) -> None:
    modular.doit("modules")
    modular.append(modular.linux / "kernel/panic.c", "int added;\n")
    assert modular.doit("modules").ran == ["vmlinux"]


def test_types_are_those_of_vmlinux(modular: Playground) -> None:
    """As scripts/Makefile.modfinal has it with BTF: a module's types follow on those of vmlinux."""
    tree = modular.linux
    modular.append(tree / "init/Kconfig", '\nconfig DEBUG_INFO_BTF_MODULES\n\tbool "BTF"\n')
    modular.append(BASE, "CONFIG_DEBUG_INFO_BTF_MODULES=y\n")
    folder = tree / "drivers/above/mod/Makefile"
    modular.edit(folder, "hello.o FORCE", "hello.o vmlinux FORCE")
    modular.edit(folder, "-r -o $@ $<", "-r -o $@ $<; sha1sum vmlinux >> $@")
    for text in ("", "int added;\n"):
        modular.append(tree / "kernel/panic.c", text)
        modular.doit("modules")
        vmlinux = (modular.images / "vmlinux").read_bytes()
        assert hashlib.sha1(vmlinux).hexdigest().encode() in packed(modular)


def test_a_folder_has_a_module_leaves_it_out_and_has_it_again(modular: Playground) -> None:
    makefile = modular.linux / "drivers/above/Makefile"
    for there in (False, True, False, True):
        rest = makefile.read_text().split("\n", 1)[1]
        makefile.write_text(f"subdir-y :={' mod' * there}\n{rest}")
        modular.doit("modules")
        assert (b"hello.ko" in packed(modular)) == there


OUTSIDE = """\
ifneq ($(M),)
command = $(CC) -Wp,-MMD,$(M)/.hello.o.d -nostdinc $(LINUXINCLUDE) $(KBUILD_CFLAGS) \\
	$(KBUILD_CFLAGS_MODULE) -DMODULE -c -o $(M)/hello.o $(M)/hello.c
modules:
	@$(command)
	@scripts/basic/fixdep $(M)/.hello.o.d $(M)/hello.o '$(command)' > $(M)/.hello.o.cmd
	@cp $(M)/hello.o $(M)/hello.ko; scripts/mod/modpost >> $(M)/hello.ko
modules_install:
	@mkdir -p $(INSTALL_MOD_PATH)/lib/modules/6.1.0/extra
	@cp $(M)/hello.ko $(INSTALL_MOD_PATH)/lib/modules/6.1.0/extra
else
modules: vmlinux
	@$(MAKE) $(build)=scripts/mod
	@: > modules.order; echo > Module.symvers
modules_install:
	@mkdir -p $(INSTALL_MOD_PATH)/lib/modules/6.1.0
endif

mrproper:
"""


@pytest.fixture
def outside(built: Playground, tmp_path: Path) -> Playground:
    """The project with a kernel that has no module; the one of tmp_path is built for it."""
    tree = built.linux
    built.edit(tree / "Makefile", "mrproper:\n", OUTSIDE)
    built.append(
        tree / "init/Kconfig",
        '\nconfig MODULES\n\tbool "Modules"\nconfig ASKED\n\tbool "Asked by a makefile"\n',
    )
    built.append(
        tree / "arch/x86/Makefile",
        "KBUILD_CFLAGS_MODULE += -DARCH='\"arch 1\"' "
        "-DASKED='\"asked $(if $(CONFIG_ASKED),2,1)\"'\n",
    )
    (tree / "scripts/mod").mkdir()
    (tree / "scripts/mod/Makefile").write_text("hostprogs := modpost\nalways-y := modpost\n")
    (tree / "scripts/mod/modpost.c").write_text(
        '#include <stdio.h>\nint main(void) { puts("modpost 1"); return 0; }\n'
    )
    built.append(BASE, "CONFIG_MODULES=y\n")
    src = tmp_path / "mine"
    src.mkdir()
    (src / "Makefile").write_text("obj-m := hello.o\n")
    (src / "hello.c").write_text("const char *hello[] = { ARCH, ASKED };\n")
    return built


def test_an_external_module(outside: Playground, tmp_path: Path) -> None:
    """The architecture's makefile, a symbol that it alone asks for, and a program."""
    words, image = (f"src={tmp_path}/mine", "module"), outside.images / "hello.ko"
    outside.doit(*words)
    assert outside.doit(*words).ran == []
    tree = outside.linux
    changes = {
        "arch": lambda: outside.edit(tree / "arch/x86/Makefile", "arch 1", "arch 2"),
        "asked": lambda: outside.append(BASE, "CONFIG_ASKED=y\n"),
        "modpost": lambda: outside.edit(tree / "scripts/mod/modpost.c", "modpost 1", "modpost 2"),
    }
    for what, change in changes.items():
        assert f"{what} 1".encode() in image.read_bytes()
        change()
        ran = outside.doit(*words).ran
        assert f"{what} 2".encode() in image.read_bytes(), (what, ran)
        assert outside.doit(*words).ran == []
    outside.append(tree / "kernel/panic.c", "int added;\n")
    assert outside.doit(*words).ran == ["vmlinux"]
