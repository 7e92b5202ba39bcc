# Shared by the scripts here; sourced, not run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Tools of the project's own, beside the downloads of the tests.
tools="$root/.services/cargo"
export PATH="$tools/bin:$HOME/.cargo/bin:$PATH"
# shellcheck disable=SC2034 # used by who sources this
deny_version=0.20.2

say() {
    printf '\033[1m%s\033[0m\n' "$*" >&2
}

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Runs a command as root: directly, or by sudo.
as_root() {
    if [[ $EUID -eq 0 ]]; then "$@"; else sudo "$@"; fi
}

# install WHY PACKAGE...: installs Debian packages, or says in one sentence what to do.
install() {
    local why=$1
    shift
    if ! have apt-get; then
        fail "Please install what is needed $why with your system's package manager (on Debian: $*), then run this again."
    fi
    if [[ $EUID -ne 0 ]] && ! have sudo; then
        fail "Please have an administrator run 'apt-get install $*' ($why), then run this again."
    fi
    say "Installing $* ($why)"
    local log
    log=$(mktemp)
    if ! { as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >"$log" 2>&1; then
        cat "$log" >&2
        fail "The packages could not be installed; the lines above say why."
    fi
    rm -f "$log"
}
