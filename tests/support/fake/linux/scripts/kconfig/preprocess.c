/* Here Linux has the macros of the Kconfig language; this tree has them from kconfiglib (see conf.py). */
