"""The provider that builds a toolchain from source with Buildroot."""
