#!/bin/sh
# link-vmlinux.sh LD NM ARCHIVES: links vmlinux, and lists its symbols in System.map.
set -e
LD=$1 NM=$2
shift 2
$LD -static -e start --build-id=sha1 -z noexecstack -o vmlinux --whole-archive "$@"
echo '  NM      System.map'
$NM -n vmlinux >System.map
echo "vmlinux: $0" >.vmlinux.d
