#!/bin/sh
# The browser client: installed as its lockfile says, then formatted, typed, tested, built and weighed; with `install`, installed only.
# Where there is no Node, says what is not run and how to get it; with CI set that is a failure.
set -eu
cd "$(dirname "$0")/../web"

missing() {
    echo "web: NOT RUN, the browser client's checks: $1." >&2
    echo "web: install Node 20.19 or newer with npm (Debian 13, Ubuntu 25.04: apt-get install -y nodejs npm), then: make web" >&2
    [ -z "${CI:-}" ] && exit 0
    exit 1
}
command -v node >/dev/null 2>&1 || missing "there is no node"
command -v npm >/dev/null 2>&1 || missing "there is no npm"
node -e '
    const [major, minor] = process.versions.node.split(".").map(Number);
    process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1);
' || missing "node is $(node --version)"

# The stamp is named for what decides the installation, so a touched file alone installs nothing.
stamp="node_modules/.setup-$(cat package.json package-lock.json packages/*/package.json | cksum | tr ' ' '-')"
if [ ! -e "$stamp" ]; then
    echo "» npm ci"
    npm ci --no-progress --loglevel=error
    touch "$stamp"
fi
[ "${1:-}" = install ] && exit 0
npm run --silent format:check
npm run --silent check
