#!/bin/sh
# link-vmlinux.sh LD NM ARCHIVES: links vmlinux, once more with the list of its own symbols if CONFIG_KALLSYMS is set, and
# lists its symbols in System.map.
set -e
LD=$1 NM=$2
shift 2
link()
{
	output=$1
	shift
	$LD -static -e start --build-id=sha1 -z noexecstack --defsym __bss_stop=_end -o $output --whole-archive "$@"
}
if grep -q '^CONFIG_KALLSYMS=y' include/config/auto.conf; then
	link .tmp_vmlinux.kallsyms1 "$@"
	{
		echo '.section .rodata; .globl kallsyms_names; kallsyms_names:'
		$NM -n .tmp_vmlinux.kallsyms1 | sed -n 's/^[0-9a-f]* . \(.*\)$/.asciz "\1"/p'
		echo '.section .note.GNU-stack,"",@progbits'
	} >.tmp_vmlinux.kallsyms1.S
	$CC -c -o .tmp_vmlinux.kallsyms1.o .tmp_vmlinux.kallsyms1.S
	set -- "$@" .tmp_vmlinux.kallsyms1.o
fi
link vmlinux "$@"
echo '  NM      System.map'
$NM -n vmlinux >System.map
echo "vmlinux: $0" >.vmlinux.d
