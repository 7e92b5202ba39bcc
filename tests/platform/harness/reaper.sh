#!/bin/sh
# Ends what a test run started once the run is over: whoever held our standard input has returned or died, however.
# Lines: `stop SIGNAL PID` (the leader of a process group), `remove PATH` (a directory of ours).
trap '' INT TERM HUP

# When a process was started, so that another with the same number later is not taken for it.
born() {
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

# True while a process runs; one that has ended and that nobody waits for (a zombie) does not.
runs() {
    kill -0 "$1" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null
}

entries=""
paths=""
while read -r verb first second; do
    case "$verb" in
    stop) entries="$entries $second:$first:$(born "$second")" ;;
    remove) paths="$paths$first
" ;;
    esac
done

ours=""
for entry in $entries; do
    pid=${entry%%:*}
    rest=${entry#*:}
    [ "$(born "$pid")" = "${rest#*:}" ] || continue
    ours="$ours $pid"
    kill -s "${rest%%:*}" "$pid" 2>/dev/null
    # A frozen process takes its signal only when it goes on.
    kill -s CONT "$pid" 2>/dev/null
done
tries=0
while [ "$tries" -lt 100 ]; do
    alive=""
    for pid in $ours; do
        runs "$pid" && alive=yes
    done
    [ -z "$alive" ] && break
    sleep 0.1
    tries=$((tries + 1))
done
for pid in $ours; do
    kill -s KILL -- "-$pid" 2>/dev/null
done
# Twice, because a program that was just making one (initdb) may write a last file.
for pause in 3 0; do
    printf '%s' "$paths" | while read -r path; do
        rm -rf -- "$path"
    done
    sleep "$pause"
done
