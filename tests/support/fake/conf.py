"""conf.py GOAL KCONFIG: what scripts/kconfig/conf does, for the fake trees of the tests, over
kconfiglib.

With CONF_STYLE=busybox like busybox's: allnoconfig passes over KCONFIG_ALLCONFIG, and the C header
is include/autoconf.h.
"""

import os
import sys
from pathlib import Path

import kconfiglib

BUSYBOX = os.environ.get("CONF_STYLE") == "busybox"
HEADER = Path("include/autoconf.h" if BUSYBOX else "include/generated/autoconf.h")
AUTO = Path("include/config/auto.conf")


def lines(kconf):
    """The symbols that are set, as in auto.conf."""
    return dict(
        sym.config_string.rstrip().split("=", 1)
        for sym in kconf.unique_defined_syms
        if sym.config_string.startswith("CONFIG_")
    )


def sync(kconf, top):
    """Write auto.conf, its list of Kconfig files and the header, and touch a file for each symbol
    that changed."""
    new = lines(kconf)
    old = (
        dict(line.split("=", 1) for line in AUTO.read_text().splitlines()) if AUTO.exists() else {}
    )
    AUTO.parent.mkdir(parents=True, exist_ok=True)
    HEADER.parent.mkdir(parents=True, exist_ok=True)
    for name in {*old, *new}:
        if old.get(name) != new.get(name):
            (AUTO.parent / name.removeprefix("CONFIG_")).touch()
    files = " \\\n\t".join(kconf.kconfig_filenames)
    Path(f"{AUTO}.cmd").write_text(
        f"deps_config := \\\n\t{files}\n\n{AUTO}: $(deps_config)\n\n$(deps_config): ;\n"
    )
    # Renamed, as conf_write_autoconf of confdata.c does; make's target comes last.
    parts = HEADER.with_name(".tmpconfig.h"), AUTO.with_name(".tmpconfig")
    kconf.write_autoconf(str(parts[0]))
    parts[1].write_text("".join(f"{name}={value}\n" for name, value in new.items()))
    parts[0].touch()
    parts[0].replace(HEADER)
    parts[1].replace(AUTO)


def main(goal, top):
    kconf = kconfiglib.Kconfig(top, warn=False)
    if goal == "listnewconfig":
        return
    if goal == "allnoconfig":
        for sym in kconf.unique_defined_syms:
            sym.set_value(2 if sym.is_allnoconfig_y else 0)
        if not BUSYBOX:
            kconf.load_allconfig("allno.config")
    elif goal != "defconfig":
        kconf.load_config(".config")
    if goal in ("syncconfig", "silentoldconfig"):
        sync(kconf, top)
    if goal == "savedefconfig":
        kconf.write_min_config("defconfig")
    else:
        kconf.write_config(".config", save_old=False)


main(*sys.argv[1:])
