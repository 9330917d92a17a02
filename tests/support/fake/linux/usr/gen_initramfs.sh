#!/bin/sh
# gen_initramfs.sh -o OUTPUT -l DEPS SOURCE...: packs folders, and what lists of `file NAME LOCATION MODE` name, with times,
# modes and owners, and writes down what it read, as Linux's does: links and modes are not seen by make.
set -e
output=$2 deps=$4
shift 4
echo 'deps_initramfs := \' > "$deps"
{
	for source; do
		if [ "${source%.cpio}" != "$source" ]; then
			echo "$source \\" >> "$deps"
			cat "$source"
		elif [ -f "$source" ]; then
			echo "$source \\" >> "$deps"
			grep -v '^#' "$source" | while read -r type name location rest; do
				[ "$type" = file ] || continue
				echo "$location \\" >> "$deps"
				echo "$name $rest $(stat -c %Y "$location")"
				cat "$location"
			done
		elif [ -d "$source" ]; then
			find "$source" -printf '%p\n' | LC_ALL=C sort | while read -r path; do
				[ -L "$path" ] || echo "$path \\" >> "$deps"
				[ "$path" = "$source" ] || find "$path" -maxdepth 0 -printf '%P %y %m %U %G %l\n'
				[ ! -f "$path" ] || [ -L "$path" ] || { stat -c %Y "$path"; cat "$path"; }
			done
		else
			echo "Cannot open '$source'" >&2
			exit 1
		fi
	done
} > "$output"
