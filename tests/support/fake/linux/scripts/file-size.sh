#!/bin/sh
# file-size.sh FILE: prints its size in bytes.
set -- $(ls -dn "$1")
printf '%s\n' "$5"
