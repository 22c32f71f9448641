#!/bin/sh
# Put the durable engines that the tests and benchmarks talk to into a cache: build-engines.sh [restate] [temporal] [inngest]
# Does nothing for what is there. Restate comes as an npm package (seconds); Temporal and Inngest are built from their Go
# sources (Go 1.25 or newer, some minutes and 4 GB of disk each). Versions: as in src/steprelay/testing/engines.py.
set -eu

cache="${XDG_CACHE_HOME:-$HOME/.cache}/steprelay/engines"
here="$(cd "$(dirname "$0")" && pwd)"

need() {
    command -v "$1" >/dev/null 2>&1 || { echo "engines: $2 needs $1; install $3" >&2; exit 1; }
}

restate() {
    folder="$cache/restate-1.7"
    for program in "$folder"/node_modules/@restatedev/restate-server-*/bin/restate-server; do
        [ -x "$program" ] && return 0
    done
    need npm Restate "Node.js 20 or newer"
    echo "» restate 1.7"
    mkdir -p "$folder"
    npm install --prefix "$folder" --no-audit --no-fund --loglevel=error '@restatedev/restate-server@1.7'
}

temporal() {
    folder="$cache/temporal-1.5.1"
    [ -x "$folder/temporal" ] && return 0
    need go Temporal "Go 1.25 or newer"
    echo "» temporal 1.5.1"
    mkdir -p "$folder"
    GOBIN="$folder" go install github.com/temporalio/cli/cmd/temporal@v1.5.1
}

# Its go.mod replaces a module, so it cannot be installed by name: ours requires it and repeats the replacement.
inngest() {
    folder="$cache/inngest-1.12.1"
    [ -x "$folder/inngest" ] && return 0
    need go Inngest "Go 1.25 or newer"
    need redis-server Inngest "the package redis-server (its tests kill both)"
    echo "» inngest 1.12.1"
    mkdir -p "$folder/src"
    cp -R "$here/engines/inngest/." "$folder/src"
    (cd "$folder/src" && GONOSUMDB='github.com/inngest/*' GOFLAGS='-mod=mod -buildvcs=false' \
        go build -p 1 -o "$folder/inngest" github.com/inngest/inngest/cmd)
}

for name in "${@:-all}"; do
    case "$name" in
        all) restate; temporal; inngest ;;
        restate | temporal | inngest) "$name" ;;
        *) echo "engines: there is no $name; there are restate, temporal, inngest" >&2; exit 2 ;;
    esac
done
