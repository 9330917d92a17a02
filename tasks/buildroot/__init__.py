"""Buildroot, which builds a toolchain: its tree, its configuration, the build."""
