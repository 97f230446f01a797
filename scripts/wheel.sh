#!/usr/bin/env bash
# Builds the wheel as the tests install it: .build/wheel, from what Cargo has compiled for them anyway, which is not
# optimised. The one for users is made by `make wheel`.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf .build/wheel
.build/venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-index --find-links .build/wheelhouse \
    --no-deps --wheel-dir .build/wheel --config-settings=build-args="--profile dev --locked" .
