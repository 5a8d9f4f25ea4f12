#!/usr/bin/env bash
# Set up everything the tests need on a fresh machine, and run all of them.
#   bash scripts/test.sh            system packages (where permitted), .venv, lint, types, layers, tests
#   PYTHON=python3.12 bash scripts/test.sh    with another Python >= 3.11
set -euo pipefail
cd "$(dirname "$0")/.."

packages="chromium chromium-driver xvfb xauth libegl1 libgl1 libglx-mesa0 libgl1-mesa-dri libopengl0 libdbus-1-3 libfontconfig1 libxkbcommon-x11-0
libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xkb1"
missing=$(for p in $packages; do dpkg -s "$p" >/dev/null 2>&1 || echo "$p"; done)
if [ -n "$missing" ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing system packages for the tests in a viewer and a browser: $(echo $missing)"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-upgrade $missing >/dev/null
  else
    echo "the tests in a viewer and a browser need these system packages; install them and run this again:" >&2
    echo "  sudo apt-get install -y --no-install-recommends $(echo $missing)" >&2
    exit 1
  fi
fi

[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
# Outside programs have an environment of their own: the validator of RO-Crates needs another rich than napari does.
[ -x .venv-outside/bin/python ] || "${PYTHON:-python3}" -m venv .venv-outside
.venv-outside/bin/python -m pip install --quiet --disable-pip-version-check roc-validator rocrate snakemake
.venv-outside/bin/python -m pip install --quiet --disable-pip-version-check --no-deps axe-playwright-python # for its axe.min.js
EVBIODIST_AXE=$(find "$PWD/.venv-outside" -name axe.min.js | head -n 1)
export EVBIODIST_AXE

echo "lint, types, layers"
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy
.venv/bin/lint-imports --no-logo 2>/dev/null | tail -n 7 || { .venv/bin/lint-imports; exit 1; }

# The viewer's tests have a display of their own, which must not reset when a client leaves while the next one comes;
# a window that hangs is ended with the lines where it stood. All other tests run meanwhile.
echo "tests in a real viewer, and all other tests beside them"
unset QT_QPA_PLATFORM
seen=$(mktemp)
trap 'rm -f "$seen"' EXIT
timeout --kill-after=10 1200 xvfb-run -a -s "-screen 0 1600x1000x24 -noreset" \
  .venv/bin/python -m pytest -q --timeout-method=thread --durations=10 tests/gui >"$seen" 2>&1 &
viewer=$!
others=0
.venv/bin/python -m pytest -q -n 2 --dist loadfile --durations=25 --ignore=tests/gui || others=$?
window=0
wait "$viewer" || window=$?
echo "tests in a real viewer"
cat "$seen"
if [ "$others" != 0 ] || [ "$window" != 0 ]; then
  echo "failed: tests in a viewer ended with $window, all others with $others" >&2
  exit 1
fi
