from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tasks import kernel, kernel_config, modules
from tasks.cache.digests import Stamps
from tasks.config.project import Project

RECORDS = (
    "/o/kernel/.panic.o.cmd",
    "/o/arch/arm/boot/.zImage.cmd",
    "/o/arch/arm/boot/compressed/.head.o.cmd",
    "/o/arch/arm/boot/dts/.versatile-pb.dtb.cmd",
    "/o/arch/mips/boot/dts/mti/.malta.dtb.cmd",
    "/o/arch/mips/boot/dts/mti/.malta.dtb.S.cmd",
    "/o/arch/mips/boot/dts/mti/.malta.dtb.o.cmd",
    "/o/arch/x86/boot/startup/.gdt_idt.o.cmd",
)
EXPECTED = (True, False, False, False, True, True, True, True)


@pytest.mark.parametrize(("record", "expected"), list(zip(RECORDS, EXPECTED, strict=True)))
def test_what_is_part_of_vmlinux(record: str, expected: bool) -> None:
    assert kernel.in_vmlinux(record, RECORDS) is expected


@pytest.mark.parametrize("line", ["CONFIG_LOCALVERSION_AUTO=y", "CONFIG_IKHEADERS=y"])
def test_git_may_name_the_kernel_anew_at_any_time_and_any_header_be_inside(
    tmp_path: Path, line: str
) -> None:
    for name in ("src", "obj"):
        (tmp_path / name).mkdir()
    (tmp_path / "src" / "localversion-mine").write_text("-mine")
    (tmp_path / "src" / ".git").mkdir()
    project = cast(
        Project,
        SimpleNamespace(
            layout=SimpleNamespace(
                config=tmp_path / "config",
                kernel_src=tmp_path / "src",
                kernel_obj=tmp_path / "obj",
            ),
            stamps=Stamps(tmp_path / "stamps"),
        ),
    )
    (tmp_path / "config").write_text("\n# CONFIG_LOCALVERSION_AUTO is not set\nCONFIG_A=y\n")
    named = kernel.version_files(project)
    assert list(named) == [str(tmp_path / "src" / "localversion-mine")]
    assert kernel.version_files(project) == named
    (tmp_path / "config").write_text(f"\nCONFIG_A=y\n{line}\n")
    assert kernel.version_files(project) != kernel.version_files(project)


def test_what_modules_are_signed_with(tmp_path: Path) -> None:
    """It is the key that make made; inputs of vmlinux alone do not count."""
    key = tmp_path / "obj" / "certs" / "signing_key.pem"
    for path in (key, tmp_path / "src" / "scripts" / "x", tmp_path / "root"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    project = cast(
        Project,
        SimpleNamespace(
            layout=SimpleNamespace(
                config=tmp_path / "config",
                kernel_src=tmp_path / "src",
                kernel_obj=tmp_path / "obj",
            ),
            stamps=Stamps(tmp_path / "stamps"),
        ),
    )
    (tmp_path / "config").write_text(
        f'CONFIG_INITRAMFS_SOURCE="{tmp_path}/root"\n'
        'CONFIG_MODULE_SIG_KEY="certs/signing_key.pem"\n'
    )
    before = modules.signed_with(project)
    assert list(before) == [str(key)]
    key.write_text("2")
    assert list(modules.signed_with(project)) == [str(key)]
    assert modules.signed_with(project) != before
    assert kernel.files_named(project).states().keys() == {str(tmp_path / "root")}


def test_a_configuration_that_was_cut_short_is_no_obstacle_to_the_next(tmp_path: Path) -> None:
    project = cast(Project, SimpleNamespace(layout=SimpleNamespace(config=tmp_path / "config")))
    for text in (None, "CONFIG_SMP=y\nCONFIG_", "\0"):
        if text is not None:
            (tmp_path / "config").write_text(text)
        assert callable(kernel_config.news(project))
