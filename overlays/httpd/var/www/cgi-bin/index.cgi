#!/bin/sh
# The status page. Everything comes from /proc and /sys; what the kernel lacks is left out.

PATH=/usr/sbin:/usr/bin:/sbin:/bin

escaped() {
    rest=$1
    while :; do
        plain=${rest%%[\&\<\>\"]*}
        printf '%s' "$plain"
        rest=${rest#"$plain"}
        case $rest in
            \&*) printf '&amp;' ;;
            \<*) printf '&lt;' ;;
            \>*) printf '&gt;' ;;
            \"*) printf '&quot;' ;;
            *) return ;;
        esac
        rest=${rest#?}
    done
}

row() { [ -z "$2" ] || printf '<tr><th>%s</th><td>%s</td></tr>\n' "$1" "$(escaped "$2")"; }

bar() { printf '<div class="bar" title="%s %%"><i style="width:%s%%"></i></div>\n' "$1" "$1"; }

# The length of a network's prefix, from its mask.
bits() {
    IFS=.
    count=0
    for part in $1; do
        while [ "$part" -gt 0 ]; do
            count=$((count + (part & 1)))
            part=$((part >> 1))
        done
    done
    printf '%d' "$count"
}

duration() {
    [ "$1" -lt 86400 ] || printf '%d d ' $(($1 / 86400))
    printf '%d:%02d:%02d' $(($1 / 3600 % 24)) $(($1 / 60 % 60)) $(($1 % 60))
}

read -r up _ </proc/uptime
read -r one five fifteen _ </proc/loadavg
release=$(uname -r)
name=$(escaped "$(hostname)")
cached=0
while read -r key value _; do
    case $key in
        MemTotal:) total=$value ;;
        MemFree:) free=$value ;;
        Cached: | Buffers:) cached=$((cached + value)) ;;
    esac
done </proc/meminfo
used=$((total - free - cached))
model=
while IFS=: read -r key value; do
    key=${key%"${key##*[![:space:]]}"}
    case $key in
        "model name" | Processor | "cpu model" | cpu | isa | uarch) model=${model:-${value# }} ;;
    esac
done </proc/cpuinfo

cat <<EOF
Content-Type: text/html; charset=utf-8
Cache-Control: no-store

<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>$name</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="refresh" content="10">
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --line: #d8dee6; --soft: #5c6773; --ink: #1c2430; --paper: #f5f7fa; --card: #fff; --mark: #2f6feb }
@media (prefers-color-scheme: dark) {
  :root { --line: #2d3644; --soft: #93a0b0; --ink: #e4e9f0; --paper: #12171f; --card: #1a212c; --mark: #6ea0ff } }
* { box-sizing: border-box }
body { margin: 0; padding: 2.5rem 1.25rem; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 46rem; margin: auto }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -.02em }
h1 small { color: var(--soft); font-size: 1rem; font-weight: 400; letter-spacing: 0 }
h2 { margin: 0 0 .6rem; font-size: .8rem; text-transform: uppercase; letter-spacing: .08em; color: var(--soft) }
section { margin-top: 1.1rem; padding: 1.1rem 1.3rem; background: var(--card); border: 1px solid var(--line); border-radius: .7rem }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; border-top: 1px solid var(--line) }
table.pairs td { overflow-wrap: anywhere }
.wide { overflow-x: auto }
.wide th { color: var(--soft); font-weight: 500 }
.wide td { white-space: nowrap }
tr:first-child > * { border-top: 0 }
table.pairs th { width: 9rem; font-weight: 500; color: var(--soft) }
td.n, th.n { text-align: right }
.bar { height: .55rem; margin: .2rem 0 .8rem; border-radius: 1rem; background: var(--line); overflow: hidden }
.bar i { display: block; height: 100%; background: var(--mark) }
footer { margin-top: 1.1rem; color: var(--soft); font-size: .85rem }
</style></head>
<body><main>
<h1>$name <small>up $(duration "${up%.*}")</small></h1>
<section><h2>System</h2><table class="pairs">
EOF
row Kernel "$(uname -s) $release ($(uname -m))"
row Built "$(uname -v)"
row Processor "$model"
row Load "$one, $five, $fifteen (1, 5, 15 min)"
row "Command line" "$(cat /proc/cmdline)"
row Time "$(date -u '+%Y-%m-%d %H:%M:%S UTC')"
cat <<EOF
</table></section>
<section><h2>Memory</h2>
$(bar $((used * 100 / total)))
<table class="pairs">
EOF
row Total "$total kB"
row Used "$used kB"
row "Buffers, cache" "$cached kB"
row Free "$free kB"
cat <<EOF
</table></section>
<section class="wide"><h2>Interfaces</h2><table>
<tr><th>Name</th><th>Address</th><th>Hardware</th><th>State</th><th class="n">Received</th><th class="n">Sent</th></tr>
EOF
for path in /sys/class/net/*; do
    [ -d "$path" ] || continue
    device=${path##*/}
    told=$(ifconfig "$device" 2>/dev/null)
    case $told in
        *"inet addr:"*Mask:*)
            address=${told#*inet addr:} mask=${told#*Mask:}
            address=${address%% *}/$(bits "${mask%%[!0-9.]*}")
            ;;
        *) address= ;;
    esac
    read -r hardware <"$path/address"
    read -r state <"$path/operstate"
    read -r received <"$path/statistics/rx_bytes"
    read -r sent <"$path/statistics/tx_bytes"
    printf '<tr><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td class="n">%s B</td><td class="n">%s B</td></tr>\n' \
        "$device" "${address:-&ndash;}" "$hardware" "$state" "$received" "$sent"
done
cat <<EOF
</table></section>
<footer>Made by busybox httpd and a shell script, for ${REMOTE_ADDR%:*}. It renews itself every ten seconds.</footer>
</main></body></html>
EOF
