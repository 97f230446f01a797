#!/usr/bin/env bash
# Builds the extension module of the Python package and puts it where the package is, so that it runs from the tree.
set -euo pipefail
cd "$(dirname "$0")/.."
PYO3_PYTHON=${PYO3_PYTHON:-$PWD/.build/venv/bin/python} cargo build --locked -p celeriac-python --features extension "$@"
target=$(cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
profile=debug
for argument in "$@"; do [ "$argument" != --release ] || profile=release; done
ln -sf "$target/$profile/libceleriac_python.so" python/celeriac/_celeriac.abi3.so
