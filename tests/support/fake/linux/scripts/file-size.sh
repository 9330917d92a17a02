#!/bin/sh
set -- $(ls -dn "$1")
printf '%s\n' "$5"
