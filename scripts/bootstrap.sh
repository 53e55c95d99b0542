# Sourced by scripts/demo and scripts/test: sets $root and makes a virtual environment with this clone in it,
# from nothing but a base system. Talks on stderr, and only while there is something to do.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
# dpkg needs the system's directories, which `su` and cron leave out.
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin
export PATH
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV

say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }

# Run a command and show what it said only if it fails.
quietly() {
    log=$(mktemp) || die "no temporary file can be made"
    if "$@" >"$log" 2>&1 </dev/null; then
        rm -f "$log"
    else
        status=$?
        cat "$log" >&2
        rm -f "$log"
        return "$status"
    fi
}

# Say how this user may run apt-get; fail where there is no way.
installer() {
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" = 0 ]; then
        echo env
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 2 ]; }; then
        echo "sudo env"
    else
        return 1
    fi
}

# Install Debian packages.
install_packages() {
    as=$(installer) || die "install these packages first, then run this again: $*"
    say "Installing $* …"
    # $as is one word or two.
    quietly $as DEBIAN_FRONTEND=noninteractive apt-get update -q || die "apt-get update failed"
    quietly $as DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" ||
        die "apt-get install $* failed"
}

# Print the first Python that is new enough.
find_python() {
    for candidate in python3.11 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# Set $venv to an environment that holds this clone with some extras ("" or "[dev]").
bootstrap() {
    venv=$root/$1
    extras=$2
    stamp=$venv/.stamp
    # Environments hold absolute paths, so one that was moved or copied is made anew.
    wanted="$root$extras $(cat "$root/pyproject.toml" "$root/scripts/bootstrap.sh" | cksum)"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && "$venv/bin/python" -c '' 2>/dev/null; then
        return
    fi
    python=$(find_python) || install_packages python3 python3-venv
    python=${python:-$(find_python)} || die "Python 3.11 or newer is needed"
    # Debian keeps ensurepip, and pip with it, in a package of its own.
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install_packages "$python-venv"
    say "Setting up $1 …"
    rm -rf "$venv"
    quietly "$python" -m venv "$venv" || die "no virtual environment can be made in $venv"
    quietly "$venv/bin/python" -m pip --disable-pip-version-check install -q -e "$root$extras" ||
        die "pip could not install tskeys and what it needs"
    printf '%s\n' "$wanted" >"$stamp"
}
