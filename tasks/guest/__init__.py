"""The booted machine: QEMU, the serial console, the checks before and after the boot."""
