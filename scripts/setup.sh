#!/usr/bin/env bash
# Puts in place what the other commands need, and nothing that is there already.
#
#   scripts/setup.sh [compiler] [lint] [redis] [rabbitmq] [postgres] [memcached] [python] [old-client] [old-worker] [flower] [beat]
#                    [peers] [wheelhouse]
#
# compiler    a C compiler and pkg-config, for the compression and TLS libraries
# lint        rustfmt and clippy
# redis       the redis-server and openssl programs; no service is started and none is left running
# rabbitmq    the rabbitmq-server program; no node is started and none is left running
# postgres    the programs of PostgreSQL; no server is started and none is left running
# memcached   the memcached program; no service is started and none is left running
# python      .build/venv: Celery 5.7, Django and pytest, with pinned versions
# old-client  .build/venv-5.3: an older Celery, to prove that its messages and results work too
# old-worker  .build/venv-5.5: an older Celery, whose workers stand beside ours in mixed fleets
# flower      .build/venv-flower, and Chromium with its driver, in which Flower's pages are looked at
# beat        .build/venv-beat: what keeps periodic tasks in a database
# peers       .build/venv-peers and .build/venv-peers-arq: the other workers of Python tasks that benchmarks measure
# wheelhouse  .build/wheelhouse: what is installed into environments that begin empty, without asking anybody
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '  %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then sudo "$@"
    else return 127
    fi
}

updated=
apt_install() {
    command -v apt-get >/dev/null ||
        die "these are missing, and there is no apt-get to install them: $*"
    as_root true || die "not root, and sudo is not available: please run: apt-get install $*"
    if [ -z "$updated" ]; then
        logged apt-get update
        updated=yes
    fi
    logged env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# Runs as root, and shows what the command said only if it fails.
logged() {
    local shown="$*"
    say "${shown#env DEBIAN_FRONTEND=noninteractive }"
    mkdir -p .build
    as_root "$@" </dev/null >>.build/setup.log 2>&1 || { tail -n 20 .build/setup.log >&2; die "failed: $*"; }
}

compiler() {
    local missing=()
    command -v cargo >/dev/null || die "cargo is missing: install Rust from https://rustup.rs"
    command -v cc >/dev/null || missing+=(build-essential)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

lint() {
    compiler
    local component
    for component in rustfmt clippy; do
        cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null || die "cargo ${component/rustfmt/fmt} is missing, and there is no rustup to add it"
        say "rustup component add $component"
        rustup component add "$component" >&2
    done
}

# Debian starts a server that it installs, unless policy-rc.d says no: the tests start their own, on free ports.
without_service() {
    local service=$1 policy=/usr/sbin/policy-rc.d ours= status=0
    if [ ! -e "$policy" ] && as_root true; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod +x "$policy"
        ours=yes
    fi
    (apt_install "$service") || status=$?
    [ -z "$ours" ] || as_root rm -f "$policy"
    [ "$status" = 0 ] || exit "$status"
    if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now "$service" >/dev/null 2>&1 || true
    fi
}

redis() {
    # The tests of encrypted connections make their certificates with it.
    command -v openssl >/dev/null || apt_install openssl
    command -v redis-server >/dev/null && return
    without_service redis-server
    command -v redis-server >/dev/null || die "redis-server was installed but is not on the PATH"
}

# Debian keeps the program where only root looks.
rabbitmq() {
    [ -x /usr/sbin/rabbitmq-server ] && return
    command -v rabbitmq-server >/dev/null && return
    without_service rabbitmq-server
    [ -x /usr/sbin/rabbitmq-server ] || die "rabbitmq-server was installed but is not in /usr/sbin"
}

# Debian keeps the programs of each version in a folder of its own.
postgres() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return
    without_service postgresql
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ||
        die "postgresql was installed but is not in /usr/lib/postgresql"
}

# `command -v` would find this function.
memcached() {
    type -P memcached >/dev/null && return
    without_service memcached
    type -P memcached >/dev/null || die "memcached was installed but is not on the PATH"
}

# The first interpreter of at least 3.10 that can make virtual environments.
interpreter() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.11 python3 /usr/bin/python3; do
        "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || continue
        echo "$candidate"
        return
    done
    return 1
}

# venv <directory> <requirements file>...: made anew when the requirements have changed.
venv() {
    local directory=$1 python stamp
    shift
    stamp=$(cat "$@" | sha256sum)
    [ -x "$directory/bin/python" ] && [ "$(cat "$directory/.stamp" 2>/dev/null)" = "$stamp" ] && return
    interpreter >/dev/null || apt_install python3 python3-venv
    python=$(interpreter) || die "no Python of at least 3.10 with the venv module: set PYTHON to one"
    say "building $directory with $("$python" --version)"
    rm -rf "$directory"
    mkdir -p "$(dirname "$directory")"
    "$python" -m venv "$directory"
    local file arguments=()
    for file in "$@"; do arguments+=(-r "$file"); done
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check "${arguments[@]}" </dev/null >&2
    echo "$stamp" >"$directory/.stamp"
}

python() {
    local files=(examples/django/requirements.txt)
    [ ! -e tests/python/requirements.txt ] || files+=(tests/python/requirements.txt)
    venv .build/venv "${files[@]}"
}

old_client() {
    local file=tests/python/requirements-5.3.txt
    [ ! -e "$file" ] || venv .build/venv-5.3 "$file"
}

old_worker() {
    local file=tests/python/requirements-5.5.txt
    [ ! -e "$file" ] || venv .build/venv-5.5 "$file"
}

flower() {
    venv .build/venv-flower tests/python/requirements-flower.txt
    local missing=()
    command -v chromium >/dev/null || missing+=(chromium)
    command -v chromedriver >/dev/null || missing+=(chromium-driver)
    [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

beat() {
    venv .build/venv-beat tests/python/requirements-beat.txt
}

# Filled anew when the requirements have changed.
wheelhouse() {
    local directory=.build/wheelhouse file=tests/python/requirements-wheel.txt stamp
    python
    stamp=$(sha256sum <"$file")
    [ "$(cat "$directory/.stamp" 2>/dev/null)" = "$stamp" ] && return
    say "filling $directory"
    rm -rf "$directory"
    .build/venv/bin/python -m pip wheel --quiet --disable-pip-version-check --wheel-dir "$directory" -r "$file" \
        </dev/null >&2
    echo "$stamp" >"$directory/.stamp"
}

peers() {
    local each
    # Two of them need different versions of one library.
    for each in peers peers-arq; do venv ".build/venv-$each" "benches/peers/python/requirements${each#peers}.txt"; done
}

for part in "$@"; do
    case $part in
        compiler | lint | redis | rabbitmq | postgres | memcached | python | flower | beat | peers | wheelhouse) "$part" ;;
        old-client) old_client ;;
        old-worker) old_worker ;;
        *) die "no part is called $part" ;;
    esac
done
