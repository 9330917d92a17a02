#!/bin/sh
# link-vmlinux.sh LD NM ARCHIVES: links vmlinux, with a table of its own symbols if CONFIG_KALLSYMS is set, and lists its
# symbols in System.map.
set -e
LD=$1 NM=$2
shift 2
ARCHIVES=$*
vmlinux_link()
{
	echo "  LD      $1"
	$LD -static -e start --build-id=sha1 -z noexecstack --defsym __bss_stop=_end -o $1 --whole-archive $ARCHIVES $2
}
# each symbol's name and address, in their order
kallsyms_step()
{
	kallsymso_prev=${kallsymso}
	kallsyms_vmlinux=.tmp_vmlinux.kallsyms${1}
	kallsymso=${kallsyms_vmlinux}.o
	vmlinux_link ${kallsyms_vmlinux} "${kallsymso_prev}"
	$NM -n ${kallsyms_vmlinux} >${kallsyms_vmlinux}.syms
	{
		echo '.section .rodata; .globl kallsyms_names; kallsyms_names:'
		sed -n '/kallsyms_names/d; s/^\([0-9a-f]*\) . \(.*\)$/.asciz "\2"; .quad 0x\1/p' ${kallsyms_vmlinux}.syms
		echo '.section .note.GNU-stack,"",@progbits'
	} >${kallsyms_vmlinux}.S
	$CC -c -o ${kallsymso} ${kallsyms_vmlinux}.S
}
kallsymso=
if grep -q '^CONFIG_KALLSYMS=y' include/config/auto.conf; then
	# The table's size, the addresses with a table of that size, and once more if the size was wrong.
	kallsyms_step 1
	kallsyms_step 2

	# step 3
	size1=$(${CONFIG_SHELL} "${srctree}/scripts/file-size.sh" ${kallsymso_prev})
	size2=$(${CONFIG_SHELL} "${srctree}/scripts/file-size.sh" ${kallsymso})

	if [ $size1 -ne $size2 ] || [ -n "${KALLSYMS_EXTRA_PASS}" ]; then
		kallsyms_step 3
	fi
fi
vmlinux_link vmlinux "${kallsymso}"
echo '  NM      System.map'
$NM -n vmlinux >System.map
if [ -n "${kallsymso}" ] && ! cmp -s System.map ${kallsyms_vmlinux}.syms; then
	echo >&2 Inconsistent kallsyms data
	exit 1
fi
echo "vmlinux: $0" > .vmlinux.d
