"""What the project says of itself: why, plan, verify."""

from __future__ import annotations

from playground import Kept, Playground

CHAIN = "bzImage <- compressed_vmlinux <- piggy.o <- piggy.gz <- Image <- vmlinux"


def test_why_before_anything_is_built(fresh: Playground) -> None:
    assert "bzImage <- nothing is built yet" in fresh.doit("why", "bzImage").text


def test_why_of_an_edited_source_before_and_after(built: Playground) -> None:
    said = built.doit("why").text
    assert "bzImage, rootfs, initramfs: up to date" in said
    built.append(built.linux / "kernel" / "panic.c", "int piggy = 1;\n")
    assert f"  {CHAIN} <- 1 object <- kernel/panic.c changed\n" in built.doit("why", "bzImage").text
    assert "rootfs: up to date" in built.doit("why", "rootfs").text
    built.doit()
    said = built.doit("why", "bzImage").text
    assert "bzImage: up to date\nthe last run did:" in said
    assert f"  {CHAIN} <- 1 object <- kernel/panic.c changed\n" in said


def test_why_of_a_symbol_names_its_place(built: Playground) -> None:
    built.append("configs/kernel/fake-serial.config", "CONFIG_LOG_BUF_SHIFT=15\n")
    line = (built.top / "configs/kernel/fake-serial.config").read_text().count("\n")
    place = f"(configs/kernel/fake-serial.config:{line})"
    said = built.doit("why", "vmlinux").text
    assert (
        "vmlinux <- 1 object <- kernel_config <- CONFIG_LOG_BUF_SHIFT not asked for -> 15"
        f" {place}\n" in said
    )
    text = built.doit().text
    assert f"CONFIG_LOG_BUF_SHIFT 14 -> 15 {place}" in text
    said = built.doit("why", "bzImage").text
    assert (
        f"{CHAIN} <- 1 object <- kernel_config <- CONFIG_LOG_BUF_SHIFT 14 -> 15 {place}\n" in said
    )


def test_why_of_a_setting_and_of_a_name_that_is_none(built: Playground) -> None:
    assert (
        "rootfs <- setting free 512 -> 600" in built.doit("rootfs_free=600", "why", "rootfs").text
    )
    for command in ("why", "plan"):
        said = built.doit(command, "bzImag", status=3).text
        assert "there is no task 'bzImag'. Did you mean 'bzImage'?" in said


def test_plan_says_what_why_and_how_long(built: Playground) -> None:
    assert "nothing to do" in built.doit("plan").text
    built.append(built.linux / "kernel" / "panic.c", "int piggy = 1;\n")
    lines = {
        line.split()[0]: line
        for line in built.doit("plan").text.splitlines()
        if line.startswith("  ")
    }
    assert list(lines) == [
        "vmlinux",
        "Image",
        "piggy.gz",
        "piggy.o",
        "compressed_vmlinux",
        "bzImage",
    ]
    assert " objects, because of 1 file" in lines["vmlinux"]
    assert " 1 of " in lines["vmlinux"]
    assert "about " in lines["vmlinux"]
    assert "if what it is made from changes" in lines["bzImage"]
    assert built.doit().ran == list(lines)


def test_plan_of_a_symbol_counts_the_objects_that_ask_for_it(built: Playground) -> None:
    before = built.digests()
    built.append("configs/kernel/fake-serial.config", "CONFIG_LOG_BUF_SHIFT=15\n")
    said = built.doit("plan", "vmlinux").text
    assert "objects, because of CONFIG_LOG_BUF_SHIFT" in said
    assert built.digests() == before  # nothing was put in force
    assert (built.obj / ".config").read_bytes() == (built.images / "config").read_bytes()


def test_verify_builds_again_elsewhere_and_agrees(built: Playground) -> None:
    built.append(built.linux / "kernel" / "panic.c", "int piggy = 1;\n")
    said = built.doit("verify").text
    assert "each bit by bit what a clean build gives" in said
    assert not (built.top / "build" / ".verify-fake").exists()


def test_verify_names_the_first_link_that_differs(built: Playground, kept: Kept) -> None:
    # a compiler that gives something else when it is run elsewhere stands for what the graph would
    # not see
    built.append(
        built.linux / "kernel" / "panic.c", "int piggy(void) { return __LINE__ ELSEWHERE; }\n"
    )
    built.edit(
        built.linux / "Makefile",
        "-O2",
        "-O2 '-DELSEWHERE=$(if $(findstring .verify,$(abs_objtree)),+1,)'",
    )
    said = built.fails("verify")
    assert "the incremental build is not what a clean one gives: vmlinux differs from byte" in said
    assert "Image" in said
    assert (built.top / "build" / ".verify-fake").is_dir()
