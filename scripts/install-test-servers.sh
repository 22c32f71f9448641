#!/bin/sh
# Install the real servers that the tests, the storm and the benchmarks run against: PostgreSQL (with pgbench) and PgBouncer.
# Does nothing when they are there. Needs Debian or Ubuntu, and root or sudo.
set -eu

have_servers() {
    command -v pgbouncer >/dev/null 2>&1 || [ -x /usr/sbin/pgbouncer ] || return 1
    for pg in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null); do
        [ -x "$pg/postgres" ] && [ -x "$pg/initdb" ] && [ -x "$pg/pgbench" ] && return 0
    done
    command -v postgres >/dev/null 2>&1 && command -v initdb >/dev/null 2>&1 && command -v pgbench >/dev/null 2>&1
}

if have_servers; then
    echo "test servers: already installed"
    exit 0
fi

line="apt-get install -y --no-install-recommends postgresql postgresql-contrib pgbouncer"
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    as_root="none"
fi
if [ "$as_root" = none ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "test servers: PostgreSQL or PgBouncer is missing. Run as root:  $line" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
# A test machine needs the programs, not a cluster that starts with it.
$as_root mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" | $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
$as_root apt-get update -qq
$as_root $line
have_servers || { echo "test servers: installed, but not found; is /usr/lib/postgresql/*/bin there?" >&2; exit 1; }
echo "test servers: installed"
