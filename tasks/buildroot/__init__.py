"""Buildroot: a toolchain made from source by it, and its own configuration."""
