"""The Kconfig language of Linux, busybox, Buildroot and uClibc-ng: requests, results, remedies."""
