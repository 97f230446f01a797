#!/usr/bin/env bash
# Builds the example project's module of Rust tasks and puts it where the tests look for it.
set -euo pipefail
cd "$(dirname "$0")/.."
crate=examples/django/rust_tasks
# A crate of its own, as a user's is, with the versions that everything else here is built with.
cp Cargo.lock "$crate/Cargo.lock"
target=$(cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
PYO3_PYTHON=${PYO3_PYTHON:-$PWD/.build/venv/bin/python} CARGO_TARGET_DIR=$target \
    cargo build --manifest-path "$crate/Cargo.toml" "$@"
profile=debug
for argument in "$@"; do [ "$argument" != --release ] || profile=release; done
mkdir -p .build/rust_tasks
ln -sf "$target/$profile/libshop_rust.so" .build/rust_tasks/shop_rust.abi3.so
