"""The Kconfig language, for Linux, busybox, Buildroot and uClibc: requests and remedies."""
