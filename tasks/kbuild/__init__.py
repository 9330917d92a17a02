"""Kbuild: make called for a goal, and the records that it leaves read."""
