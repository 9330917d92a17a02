"""More kinds of edits: of makefiles, Kconfig files, and of which files there are in the kernel
tree."""

from __future__ import annotations

import os
import random
import re
import shutil
import time
from pathlib import Path

from edits import Skip, add, any_file, kind, line, pick, sources, write
from world import World, rename


@kind("Makefile")
def makefile(world: World, rng: random.Random) -> str:
    """A flag, an own flag for one object, or a comment."""
    source = Path(pick(rng, sources(world, "vmlinux" if rng.random() < 0.7 else "boot")))
    path = world.tree / source.parent / "Makefile"
    if not path.exists():
        raise Skip
    text = rng.choice(
        [
            f"ccflags-y += -DCAMPAIGN={rng.randrange(1000)}",
            f"CFLAGS_{source.stem}.o += -falign-functions=128",
            f"ccflags-y += -falign-functions={rng.choice([32, 64])}",
            "# more",
        ]
    )
    add(world, path, text + "\n", old_time=rng.random() < 0.2)
    return f"{path}: {text}"


@kind("Kconfig")
def kconfig(world: World, rng: random.Random) -> str:
    path = world.tree / "init" / "Kconfig"
    how = rng.choice(["default", "symbol", "comment"])
    if how == "default":
        text = path.read_text()
        default = re.compile(r"(\nconfig LOG_BUF_SHIFT\n(?:.*\n){1,4}?\s+default )\d+")
        write(world, path, default.sub(rf"\g<1>{rng.randrange(13, 18)}", text))
    else:
        add(
            world,
            path,
            (
                f"\nconfig CAMPAIGN_{rng.getrandbits(24):X}\n\tdef_bool y\n"
                if how == "symbol"
                else "# more\n"
            ),
        )
    return how


@kind("new object")
def new_object(world: World, rng: random.Random) -> str:
    """A new C file with its line in the makefile."""
    folder, name = rng.choice(["kernel", "lib"]), f"campaign_{rng.getrandbits(24):06x}"
    (world.tree / folder / f"{name}.c").write_text(line(rng, "x.c"))
    add(world, world.tree / folder / "Makefile", f"obj-y += {name}.o\n")
    return f"{folder}/{name}.c"


@kind("rename")
def rename_source(world: World, rng: random.Random) -> str:
    """A C file gets another name, and its makefile knows."""
    choice = [
        name
        for name in sources(world)
        if (world.tree / name).parent.joinpath("Makefile").exists()
        and re.search(
            rf"\b{Path(name).stem}\.o\b",
            (world.tree / name).parent.joinpath("Makefile").read_text(),
        )
        and name.startswith(("kernel/", "lib/", "drivers/"))
    ]
    old = pick(rng, choice)
    new = f"{Path(old).parent}/renamed_{rng.getrandbits(24):06x}.c"
    rename(world.tree, old, new)
    return f"{old} -> {new}"


@kind("Kbuild beside Makefile")
def kbuild_file(world: World, rng: random.Random) -> str:
    """Kbuild reads a file named Kbuild rather than Makefile; here it comes, or goes."""
    folder = world.tree / rng.choice(["lib", "kernel"])
    if (folder / "Kbuild").exists():
        (folder / "Kbuild").unlink()
        return f"{folder} without"
    if not (folder / "Makefile").exists():
        raise Skip
    (folder / "campaign_kbuild.c").write_text("int campaign_kbuild = 1;\n")
    (folder / "Kbuild").write_text(
        (folder / "Makefile").read_text() + "obj-y += campaign_kbuild.o\n"
    )
    return f"{folder} with"


@kind("shadowing header")
def shadow(world: World, rng: random.Random) -> str:
    """A new header that is found before one that is in use."""
    choice = [
        name
        for name in sources(world, "vmlinux", (".h",))
        if re.match(r"include/(uapi|asm-generic)/", name)
    ]
    shadows = {
        name: re.sub(r"^include/uapi/", "include/", name) for name in choice if "uapi" in name
    }
    found = pick(rng, [name for name, new in shadows.items() if not (world.tree / new).exists()])
    new = world.tree / shadows[found]
    new.parent.mkdir(parents=True, exist_ok=True)
    new.write_text((world.tree / found).read_text() + line(rng, "x.h"))
    return str(new)


@kind("shadowing folder")
def shadow_folder(world: World, rng: random.Random) -> str:
    """A new folder beside a source has a header that is found before one that is in use.

    The source names the header as "zz/z.h", which is found by -I in include/ without the folder.
    The folder comes with a new or an old time, or goes.
    """
    where, new = world.tree / "lib" / "campaign_zz.c", world.tree / "lib" / "zz"
    if not where.exists():
        (world.tree / "include" / "zz").mkdir(exist_ok=True)
        (world.tree / "include" / "zz" / "z.h").write_text("#define CAMPAIGN_ZZ 1\n")
        where.write_text('#include "zz/z.h"\nint campaign_zz = CAMPAIGN_ZZ;\n')
        add(world, world.tree / "lib" / "Makefile", "obj-y += campaign_zz.o\n")
        world.doit()
    if new.exists():
        shutil.rmtree(new)
        return "gone"
    aside = world.tree / "include" / "zz_aside"
    aside.mkdir()
    (aside / "z.h").write_text(f"#define CAMPAIGN_ZZ {rng.randrange(2, 10**6)}\n")
    if old := rng.random() < 0.5:
        os.utime(aside / "z.h", (10**9, 10**9))
    aside.rename(new)
    return "with an old time" if old else "new"


@kind("linked header")
def linked(world: World, rng: random.Random) -> str:
    """A header that is a link is made to lead elsewhere."""
    folder = world.tree / "include" / "linux"
    link = folder / "campaign_link.h"
    for name in ("a", "b"):
        if not (folder / f"campaign_{name}.h").exists():
            (folder / f"campaign_{name}.h").write_text(f"#define CAMPAIGN_LINK '{name}'\n")
            time.sleep(0.01)
    where = world.tree / "lib" / "campaign_link.c"
    if not where.exists():
        link.unlink(missing_ok=True)
        link.symlink_to("campaign_a.h")
        where.write_text(
            "#include <linux/campaign_link.h>\nint campaign_link_is = CAMPAIGN_LINK;\n"
        )
        add(world, world.tree / "lib" / "Makefile", "obj-y += campaign_link.o\n")
        world.doit()
    target = "campaign_a.h" if os.readlink(link) == "campaign_b.h" else "campaign_b.h"
    link.unlink()
    link.symlink_to(target)
    return target


@kind("unreadable")
def unreadable(world: World, rng: random.Random) -> str:
    """A source that nobody may read: the build fails, or is as it was; then it can be read
    again."""
    path = any_file(world, rng)
    mode, plain = path.stat().st_mode, world.play.plain
    path.chmod(0)
    world.play.plain = True
    try:
        status = world.doit().status
    finally:
        path.chmod(mode)
        world.play.plain = plain
    return f"{path}: status {status}"


# what the build itself runs or reads, each with the line that is added; {n} is a number
MACHINERY = {
    "arch/x86/entry/syscalls/syscall_32.tbl": "{n}\ti386\tcampaign\tsys_ni_syscall",
    "arch/x86/kernel/vmlinux.lds.S": "campaign_{n} = {n};",
    "arch/x86/boot/compressed/vmlinux.lds.S": "campaign_{n} = {n};",
    "arch/x86/boot/setup.ld": "campaign_{n} = {n};",
    "arch/x86/realmode/rm/realmode.lds.S": "campaign_{n} = {n};",
    "arch/x86/kernel/asm-offsets.c": (
        "static void __used campaign_{n}(void) {{ DEFINE(CAMPAIGN_{n}, {n}); }}"
    ),
    "arch/x86/include/asm/cpufeatures.h": (
        '#define X86_FEATURE_CAMPAIGN_{n}\t( 3*32+11) /* "campaign{n}" */'
    ),
    "include/uapi/linux/falloc.h": "/* {n} */",
    "include/uapi/linux/level.h": "/* {n} */",
    "drivers/tty/vt/cp437.uni": "# {n}",
    "drivers/tty/vt/defkeymap.c_shipped": "int campaign_keymap_{n} = {n};",
    **dict.fromkeys(
        [
            "arch/x86/boot/compressed/mkpiggy.c",
            "arch/x86/boot/tools/build.c",
            "arch/x86/boot/mkcpustr.c",
            "arch/x86/tools/relocs.c",
            "lib/gen_crc32table.c",
            "scripts/basic/fixdep.c",
            "scripts/conmakehash.c",
            "scripts/kallsyms.c",
            "scripts/mod/modpost.c",
            "scripts/sorttable.c",
            "usr/gen_init_cpio.c",
        ],
        "int campaign_{n} = {n};",
    ),
    **dict.fromkeys(
        [
            "Makefile",
            "arch/x86/Makefile",
            "arch/x86/kernel/cpu/mkcapflags.sh",
            "scripts/Kbuild.include",
            "scripts/Makefile.build",
            "scripts/Makefile.lib",
            "scripts/Makefile.vmlinux",
            "scripts/check-local-export",
            "scripts/checksyscalls.sh",
            "scripts/head-object-list.txt",
            "scripts/link-vmlinux.sh",
            "scripts/mkcompile_h",
            "scripts/setlocalversion",
            "scripts/syscallhdr.sh",
            "scripts/syscalltbl.sh",
            "usr/default_cpio_list",
        ],
        "# {n}",
    ),
}


@kind("machinery")
def machinery(world: World, rng: random.Random) -> str:
    """A table, a linker script, or a program or script that the build itself runs."""
    name = pick(rng, [name for name in MACHINERY if (world.tree / name).is_file()])
    text = MACHINERY[name].format(n=rng.randrange(451, 500))
    if text in (world.tree / name).read_text():
        raise Skip
    add(world, world.tree / name, text + "\n", old_time=rng.random() < 0.2)
    return f"{name}: {text}"


@kind("localversion")
def localversion(world: World, rng: random.Random) -> str:
    """A file localversion* at the top of the tree, whose text ends the kernel's release: new,
    changed, or gone."""
    path = world.tree / f"localversion-{rng.choice('ab')}"
    if path.exists() and rng.random() < 0.5:
        path.unlink()
        return f"{path.name} gone"
    path.write_text(f"-c{rng.randrange(1000)}\n")
    return f"{path.name} {path.read_text().strip()}"
