#!/bin/sh
# Ends what a test run started once the run is over: whoever held our standard input has returned or died, however.
# Lines: `stop SIGNAL PID` (a group leader to end), `forget PID` (it has ended), `remove PATH` (a directory of ours).
trap '' INT TERM HUP

# True while a process runs; one that has ended and that nobody waits for (a zombie) does not.
runs() {
    kill -0 "$1" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null
}

signals=" "
paths=""
while read -r verb first second; do
    case "$verb" in
    stop) signals="$signals$second:$first " ;;
    forget) signals=$(printf '%s' "$signals" | sed "s/ $first:[A-Z]* / /g") ;;
    remove) paths="$paths$first
" ;;
    esac
done

for entry in $signals; do
    kill -s "${entry#*:}" "${entry%%:*}" 2>/dev/null
    # A stopped process takes its signal only when it goes on.
    kill -s CONT "${entry%%:*}" 2>/dev/null
done
tries=0
while [ "$tries" -lt 100 ]; do
    alive=""
    for entry in $signals; do
        runs "${entry%%:*}" && alive=yes
    done
    [ -z "$alive" ] && break
    sleep 0.1
    tries=$((tries + 1))
done
for entry in $signals; do
    kill -s KILL -- "-${entry%%:*}" 2>/dev/null
done
printf '%s' "$paths" | while read -r path; do
    rm -rf -- "$path"
done
