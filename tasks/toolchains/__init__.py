"""Toolchain providers: each finds or builds a cross compiler; a record describes it."""
