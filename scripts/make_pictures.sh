#!/usr/bin/env bash
# Make docs/pictures from a fresh run of the sample study. Needs Debian's chromium; pictures are looked at by eye.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p docs/pictures
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/evbiodist demo "$work/demo" --quiet
chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$work/profile" --window-size=1160,3000 \
  --screenshot="$work/report.png" "file://$work/demo/results/report.html" >/dev/null 2>&1
.venv/bin/python - "$work" <<'PY'
import sys
from PIL import Image

page = Image.open(f"{sys.argv[1]}/report.png").convert("RGB")
page.crop((0, 0, 1160, 890)).save("docs/pictures/report.png", optimize=True)
page.crop((0, 1790, 1160, 2640)).save("docs/pictures/labels.png", optimize=True)
PY
