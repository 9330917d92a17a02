"""Toolchain providers, one module each, and the probe that every toolchain must pass."""
