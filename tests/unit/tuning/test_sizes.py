"""Records of measurements, what is measured without an object folder, and links made again."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from tasks.cache.digests import content_digest
from tasks.kbuild import trace
from tasks.kbuild.saved import Unfamiliar
from tasks.kbuild.trace import Said, Trace
from tasks.tuning import elf, image, pieces, relink, sizes
from tasks.tuning.builds import Build
from tests.support.linking import Linked, link


@pytest.fixture
def linked(tmp_path: Path) -> Linked:
    return link(tmp_path / "obj")


def build(linked: Linked, kept: Path, obj: Path | None) -> Build:
    kept.mkdir(exist_ok=True)
    return Build(
        name="test",
        vmlinux=linked.program,
        files={"vmlinux": linked.program, "Image": linked.binary},
        image="Image",
        raw="Image",
        packed="",
        config=None,
        obj=obj,
        kept=kept,
    )


def as_kbuild_does(linked: Linked, script: str = "scripts/link.sh ld") -> None:
    """Give the folder the records of a vmlinux that a script linked."""
    obj = linked.top
    linked.program.rename(obj / "vmlinux")
    (obj / "scripts").mkdir()
    objects = " ".join(linked.objects)
    (obj / "scripts" / "link.sh").write_text(
        "#!/bin/sh\nset -e\n[ -e .tmp_vmlinux1 ] && $1 -o .tmp_vmlinux1 nothing.o\n"
        f"$1 -T script.lds -z noexecstack --build-id=none -o vmlinux {objects}\n"
        "echo changed > System.map\n"
    )
    (obj / "scripts" / "link.sh").chmod(0o755)
    (obj / ".vmlinux.cmd").write_text(f"savedcmd_vmlinux := {script}\n")
    said = Said({"LD": "ld"}, {"vmlinux": []})
    trace.write(obj, Trace({"vmlinux": said}))
    for name in ("System.map", ".tmp_vmlinux1", ".tmp_vmlinux1.o"):
        (obj / name).write_text("as it was")


def whole(linked: Linked, kept: Path) -> Build:
    """A build with the object folder that it was made in."""
    as_kbuild_does(linked)
    it, vmlinux = build(linked, kept, linked.top), linked.top / "vmlinux"
    return msgspec.structs.replace(it, vmlinux=vmlinux, files={**it.files, "vmlinux": vmlinux})


def test_a_link_made_again_is_the_same_and_nothing_is_written_in_the_folder(
    linked: Linked, tmp_path: Path
) -> None:
    as_kbuild_does(linked)
    before = {path: path.read_bytes() for path in linked.top.rglob("*") if path.is_file()}
    found, inputs = relink.vmlinux(linked.top, tmp_path)
    real = elf.read(linked.top / "vmlinux")
    assert found.layout == real.layout
    assert {part.object for part in inputs if part.object} == set(linked.objects)
    assert {path: path.read_bytes() for path in linked.top.rglob("*") if path.is_file()} == before
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".size")] == []


def test_a_link_of_other_objects_is_another(linked: Linked, tmp_path: Path) -> None:
    as_kbuild_does(linked)
    (linked.top / "kernel" / "other.o").write_bytes((linked.top / "kernel/panic.o").read_bytes())
    with pytest.raises(Unfamiliar, match="failed"):  # two functions of one name
        relink.vmlinux(linked.top, tmp_path)


@pytest.mark.parametrize("script", ["scripts/link.sh other-ld", "scripts/none.sh ld", "false ld"])
def test_a_link_that_can_not_be_made_again_is_said(
    linked: Linked, tmp_path: Path, script: str
) -> None:
    as_kbuild_does(linked, script)
    with pytest.raises(Unfamiliar):
        relink.vmlinux(linked.top, tmp_path)


@pytest.mark.parametrize(
    "command", ["ld -o x a.o | cat", "ld a.o", "ld -o x -o y a.o", "ld -o x $(cat list)"]
)
def test_only_plain_calls_of_the_linker_are_made_again(tmp_path: Path, command: str) -> None:
    (tmp_path / ".x.cmd").write_text(f"cmd_x := {command.replace('$', '$$')}\n")
    with pytest.raises(Unfamiliar, match="no call of the linker alone"):
        relink.other(tmp_path, "x", tmp_path)


def test_a_record_is_kept_and_found_again(linked: Linked, tmp_path: Path) -> None:
    it = build(linked, tmp_path / "kept", None)
    sizes.note(it, sizes.measure(it), ["abc"])
    first = sizes.measure(it)
    digest = content_digest(linked.program)
    assert sizes.read(it.kept, digest) == first
    assert sizes.measure(it) == first
    assert sizes.of_commit(it.kept, "abc") == first
    assert sizes.of_commit(it.kept, "abd") is None
    disk = tmp_path / "rootfs.ext2"  # made anew, of another size, for the same kernel
    for size in (7, 9):
        disk.write_bytes(bytes(size))
        other = msgspec.structs.replace(it, files={**it.files, "rootfs": disk})
        assert sizes.measure(other).files == {**first.files, "rootfs": size}
    assert sum(row.size for row in first.raw) == linked.binary.stat().st_size
    (path,) = (it.kept / sizes.FOLDER).glob(f"{digest}-*{sizes.SUFFIX}")
    for damage in (b"", path.read_bytes()[:-9], b"\0" * 90):
        path.write_bytes(damage)
        assert sizes.read(it.kept, digest) is None
        again = sizes.measure(it)
        assert msgspec.structs.replace(again, time=first.time, commits=["abc"]) == first


def test_a_build_that_boots_vmlinux_is_measured_by_itself(linked: Linked, tmp_path: Path) -> None:
    """Though there is a record of the same vmlinux, with objects."""
    it = whole(linked, tmp_path / "kept")
    first, disk = sizes.measure(it), tmp_path / "rootfs.ext2"
    assert first.why == ""
    disk.write_bytes(bytes(7))
    files = {**it.files, "rootfs": disk}
    other = sizes.measure(msgspec.structs.replace(it, image="vmlinux", files=files))
    assert other.files == {**first.files, "rootfs": 7}
    assert other.state != first.state
    assert sum(row.size for row in other.booted) == it.vmlinux.stat().st_size
    assert {"kernel/panic.o", "(headers)"} <= {row.object for row in other.booted}
    assert "(other)" not in {row.object for row in other.booted}


@pytest.mark.parametrize("order", ["head.o", "main.o"])
def test_a_loader_without_a_saved_command_is_linked_in_its_makefiles_order(
    tmp_path: Path, order: str
) -> None:
    """As arch/mips/boot/compressed/Makefile links and strips vmlinuz; in another order it is not
    known."""
    tree, obj = tmp_path / "tree/arch/mips/boot/compressed", tmp_path / "obj"
    names = ["head.o", "main.o"]
    for folder in (tree, obj):
        folder.mkdir(parents=True)
    for name in names:
        source = f'int {name[0]}_one(void) {{ return 1; }}\n__asm__(".fill 4096,1,{ord(name[0])}");'
        (obj / "x.c").write_text(source)
        subprocess.run(["gcc", "-O2", "-c", "x.c", "-o", name], cwd=obj, check=True)
    script = tree / "ld.script"
    script.write_text("SECTIONS { .text : { *(.text) } /DISCARD/ : { *(.*) } }\n")
    (tree / "Makefile").write_text(
        f"objs-y := $(obj)/{order}\nobjs-y += $(obj)/head.o $(obj)/main.o\n"
    )
    words = ["-z", "noexecstack", "-Ttext=0x80420000", "-T", str(script)]
    subprocess.run(["ld", *words, *names, "-o", "vmlinuz"], cwd=obj, check=True)
    subprocess.run(["strip", "-s", "vmlinuz"], cwd=obj, check=True)
    env = {**os.environ, "LD": "ld", "KBUILD_LDFLAGS": "-z noexecstack"}
    trace.write(obj, Trace({"vmlinuz": Said(env, {"vmlinuz": sorted([*names, str(script)])})}))
    (obj / "piggyback.vmlinuz").write_text("vmlinuz\n")
    made = obj / "vmlinuz"
    it = Build(
        name="test",
        vmlinux=made,
        files={"vmlinuz": made},
        image="vmlinuz",
        raw="Image",
        packed="",
        config=None,
        obj=obj,
        kept=tmp_path,
    )
    rows = image.rows(made.read_bytes(), sizes._loader(it))
    assert sum(row.size for row in rows) == made.stat().st_size
    parts = [row for row in rows if row.section == ".text" and "(alignment)" not in row.object]
    found = {(row.object, row.name) for row in parts if row.size < 4096}
    if order == "head.o":
        assert found >= {("(vmlinuz)/head.o", "h_one"), ("(vmlinuz)/main.o", "m_one")}
    else:
        assert parts == []
        assert "(other)" in {row.object for row in rows}
    assert not list(tmp_path.glob(".size*"))
    with pytest.raises(Unfamiliar, match="no vmlinuz of MIPS"):
        relink.zboot(obj, "other", made, tmp_path)


def test_another_raw_image_of_the_same_vmlinux_is_measured(linked: Linked, tmp_path: Path) -> None:
    it = msgspec.structs.replace(whole(linked, tmp_path / "kept"), image="vmlinux")
    sizes.measure(it)
    linked.binary.write_bytes(linked.binary.read_bytes() + bytes(64))
    assert sum(row.size for row in sizes.measure(it).raw) == linked.binary.stat().st_size


def test_several_images_and_configurations_of_one_vmlinux_have_a_record_each(
    linked: Linked, tmp_path: Path
) -> None:
    """As where a compressor was switched, or a symbol that no object reads."""
    config, packed = tmp_path / "config", tmp_path / "bzImage"
    it = build(linked, tmp_path / "kept", None)
    it = msgspec.structs.replace(
        it, config=config, files={**it.files, "bzImage": packed}, image="bzImage"
    )
    cases = (("one", b"x" * 9, "XZ"), ("two", b"x" * 7, "GZIP"), ("three", b"x" * 7, "UNREAD"))
    for commit, content, symbol in cases:
        packed.write_bytes(content)
        config.write_text(f"CONFIG_{symbol}=y\n")
        record = sizes.measure(it)
        assert (record.config, record.commits) == ({symbol: "y"}, [])
        sizes.note(it, record, [commit])
    for commit, content, symbol in cases:
        kept = sizes.of_commit(it.kept, commit)
        assert kept
        assert (kept.files["bzImage"], kept.config) == (len(content), {symbol: "y"})
    assert sizes.measure(it).commits == ["three"]


def test_commits_are_kept_where_a_link_can_never_be_made_again(
    linked: Linked, tmp_path: Path
) -> None:
    it = build(linked, tmp_path / "kept", linked.top)
    sizes.note(it, sizes.measure(it), ["abc"])
    found = sizes.measure(it)  # once more, with something uncommitted
    assert found.why
    assert found.commits == ["abc"]
    assert sizes.of_commit(it.kept, "abc")


def test_a_record_without_a_map_is_made_anew_once_there_is_one(
    linked: Linked, tmp_path: Path
) -> None:
    assert sizes.measure(build(linked, tmp_path / "kept", None)).why
    it = whole(linked, tmp_path / "kept")
    found = sizes.measure(it)
    assert found.why == ""
    assert next(piece for piece in found.pieces if piece.name == "shared").object == (
        "kernel/panic.o"
    )
    assert sizes.measure(msgspec.structs.replace(it, obj=None)).why == ""  # from the record


def test_old_records_go(linked: Linked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_MOST", 3)
    it = build(linked, tmp_path / "kept", None)
    for number in range(6):
        with linked.program.open("ab") as stream:
            stream.write(b"x")
        sizes.note(it, sizes.measure(it), [f"commit {number}"])
        for path in sizes._all(it.kept):
            info = path.stat()
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns - 10**9))
    assert [sizes.of_commit(it.kept, f"commit {number}") is not None for number in range(6)] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]


def test_memory_is_all_that_is_loaded_and_init_is_freed(linked: Linked, tmp_path: Path) -> None:
    found = sizes.measure(build(linked, tmp_path / "kept", None))
    real = elf.read(linked.program)
    assert found.ram.kept + found.ram.init + found.ram.brk == sum(
        section.size for section in real.sections if section.alloc
    )
    init = next(section for section in real.sections if section.name == ".init.text")
    assert found.ram.init == init.size
    assert found.ram.bss == next(one.size for one in real.sections if one.name == ".bss")
    assert sizes.memory(linked.program) == (found.ram, 3)


def test_names_of_two_objects_are_not_known() -> None:
    found = [
        pieces.Piece(".text", 0, 1, "a.o", "helper", "t", True),
        pieces.Piece(".text", 1, 1, "b.o", "helper", "t", True),
        pieces.Piece(".text", 2, 1, "b.o", "[.text]", "t", False),
        pieces.Piece(".text", 3, 1, "b.o", "own", "t", True),
    ]
    assert pieces.objects_of(found) == {"own": "b.o"}


def test_relocations_that_are_compressed_behind_the_image_have_a_row(
    linked: Linked, tmp_path: Path
) -> None:
    obj = linked.top
    (obj / "boot").mkdir()
    linked.binary.rename(obj / "boot" / "vmlinux.bin")
    (obj / "boot" / "vmlinux.relocs").write_bytes(bytes(range(256)) * 4)
    parts = [(obj / "boot" / f"vmlinux.{one}").read_bytes() for one in ("bin", "relocs")]
    packed = gzip.compress(b"".join(parts))
    (obj / "boot" / "vmlinux.bin.gz").write_bytes(packed)
    (obj / "boot" / "image").write_bytes(b"\0" * 100 + packed + b"\0" * 9)
    (obj / "boot" / ".vmlinux.bin.gz.cmd").write_text(
        "cmd_boot/vmlinux.bin.gz := cat boot/vmlinux.bin boot/vmlinux.relocs | gzip -9 >"
        " boot/vmlinux.bin.gz\n"
    )
    for name, target in (("Image", "vmlinux.bin"), ("piggy.gz", "vmlinux.bin.gz")):
        (obj / f"piggyback.{name}").write_text(f"boot/{target}")
    it = build(linked, tmp_path / "kept", obj)
    files = {
        "vmlinux": linked.program,
        "Image": obj / "boot" / "vmlinux.bin",
        "piggy.gz": obj / "boot" / "vmlinux.bin.gz",
        "bzImage": obj / "boot" / "image",
    }
    it = msgspec.structs.replace(it, files=files, packed="piggy.gz", image="bzImage")
    found = sizes.measure(it)
    assert sum(row.size for row in found.raw) == files["Image"].stat().st_size
    relocations = [row for row in found.booted if row.object == "(piggy.gz)/(vmlinux.relocs)"]
    assert len(relocations) == 1
    assert sum(row.about for row in found.raw) + relocations[0].size == len(packed)
    assert sum(row.size for row in found.booted) == files["bzImage"].stat().st_size
    assert [row.size for row in found.booted if row.object == "(alignment)"] == [100, 9]
