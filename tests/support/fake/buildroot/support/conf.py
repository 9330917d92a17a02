"""conf.py GOAL KCONFIG .CONFIG DEFCONFIG: Buildroot's configuration targets, over kconfiglib.
Without CONFIG_"""

import os
import sys
from pathlib import Path

os.environ["CONFIG_"] = ""
import kconfiglib

goal, top, config, defconfig = sys.argv[1:]
kconf = kconfiglib.Kconfig(top, warn=False)
if goal == "defconfig":
    kconf.load_config(defconfig)
    kconf.syms["BR2_DEFCONFIG"].set_value(defconfig)
else:
    kconf.load_config(config)
if goal == "savedefconfig":
    kconf.write_min_config(defconfig)
else:
    if goal == "menuconfig":  # what the tests' user chooses
        for line in (Path.home() / "choices").read_text().splitlines():
            name, _, value = line.partition("=")
            kconf.syms[name].set_value(value)
    kconf.write_config(config, save_old=False)
