"""vmlinux without make: the saved commands of Kbuild replayed for what changed."""
