"""Kbuild: running make, and what its records say of a build."""
