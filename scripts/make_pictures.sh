#!/usr/bin/env bash
# Make docs/pictures of the report from a fresh run of the sample study. Needs Debian's chromium, chromium-driver and poppler-utils;
# pictures are looked at by eye. The picture of 500 animals: see scripts/report_pictures.py.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/evbiodist demo "$work/demo" --quiet
.venv/bin/python scripts/report_pictures.py "$work/demo/results"
