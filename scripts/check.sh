#!/usr/bin/env bash
# Everything that needs no broker and no Python: formats, lints, documentation, licences, the rules of the house.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh lint

step() { printf '\n== %s\n' "$*"; "$@"; }

step cargo fmt --all --check
step rustfmt --check --edition 2021 benches/peers/celery-crate/src/main.rs
step rustfmt --check --edition 2024 benches/peers/rabbitmq/src/main.rs
step cargo clippy --workspace --all-targets --locked -- -D warnings
step cargo clippy --all-targets --features otlp --locked -- -D warnings
# The extension is compiled for whatever Python there will be.
step env PYO3_NO_PYTHON=1 cargo clippy --locked -p celeriac-python --features extension -- -D warnings
if cargo deny --version >/dev/null 2>&1; then
    step cargo deny --all-features check
else
    printf '\n== cargo deny: not installed, skipped (the rules are in deny.toml)\n'
fi
RUSTDOCFLAGS="-D warnings" step cargo doc --workspace --no-deps --locked
step cargo test --locked --test tidy
for script in scripts/*.sh .ci/run; do bash -n "$script"; done
printf '\ncheck: all right\n'
