#!/usr/bin/env bash
# All tests, and one closing summary. Both suites run even if the first one fails.
set -uo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
mkdir -p .build
scripts/setup.sh compiler || exit
# While the rest is downloaded; cargo test waits for it, and says itself what cannot be compiled.
cargo test --workspace --locked --no-run >.build/compile.log 2>&1 &
compiling=$!
scripts/setup.sh redis rabbitmq postgres memcached python old-client old-worker flower beat wheelhouse ||
    { kill $compiling 2>/dev/null; exit 1; }

# What the tests in Python need besides is compiled while those in Rust run: most of the time these wait for something.
# Cargo compiles one thing at a time, so it begins when the first of them run.
prepare() {
    until grep -q '^test result:' .build/cargo-test.log; do
        kill -0 $$ 2>/dev/null || return
        sleep 1
    done
    scripts/wheel.sh && scripts/extension.sh && scripts/rust_tasks.sh
}

printf '\n== cargo test --workspace (units, promises, documentation)\n'
: >.build/cargo-test.log
prepare >.build/prepare.log 2>&1 &
prepared=$!
cargo test --workspace --locked --no-fail-fast 2>&1 | tee .build/cargo-test.log
rust=${PIPESTATUS[0]}
# Where nothing was compiled, nothing ran.
echo 'test result: over' >>.build/cargo-test.log
# What the tests need was put in place above: one that was skipped has proved nothing.
if grep -q 'skipped: .* is not installed' .build/cargo-test.log; then
    printf 'these were skipped, and must not be:\n'
    grep -o 'skipped: .* is not installed.*' .build/cargo-test.log | sort | uniq -c
    rust=1
fi

# The development build is the one that cargo test has just made: an optimised one would take minutes more to compile
# than it would save in running.
# Most of the time these wait for something: two files at a time, each with brokers of its own. With three, two cores are
# so busy that tests lose races which they win anywhere else.
printf '\n== pytest tests/python (stock Celery against the example worker)\n'
python=0
if cargo build --locked --example worker --example producer && wait "$prepared"; then
    target=$(cargo metadata --format-version 1 --no-deps | .build/venv/bin/python -c \
        'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    export CELERIAC_WORKER="$target/debug/examples/worker" CELERIAC_WHEEL="$PWD/.build/wheel"
    suites() { .build/venv/bin/python -m pytest tests/python -q -rap "$@" 2>&1; }
    # Who measures how long something takes does it alone.
    timed=returned_to_within_two_seconds
    (suites -n 2 --dist loadfile --no-loadscope-reorder -k "not $timed"; one=$?; suites -k "$timed" && exit $one) |
        tee .build/pytest.log | grep --line-buffered -v '^PASSED '
    python=${PIPESTATUS[0]}
else
    python=1
    tail -n 40 .build/prepare.log
    : >.build/pytest.log
fi

# What README promises is what the tests of this very run have shown.
printf '\n== the table of features, by what was printed above\n'
cargo test --locked --quiet --test tidy -- --ignored --nocapture every_feature_was_proved 2>&1 | tee .build/features.log
features=${PIPESTATUS[0]}

rust_totals=$(awk '/^test result:/ { for (i = 4; i < NF; i++) { if ($(i+1) ~ /^passed/) p += $i
    if ($(i+1) ~ /^failed/) f += $i; if ($(i+1) ~ /^ignored/) g += $i } }
    END { printf "%d passed, %d failed, %d ignored", p, f, g }' .build/cargo-test.log)
python_totals=$(grep -E '^[0-9]+ (passed|failed|error).* in [0-9]' .build/pytest.log | paste -sd '+' | sed 's/+/, and alone /')
features_totals=$(grep -o '[0-9]* rows of .*' .build/features.log)
# Why something failed, once more: above it stands among thousands of lines.
reasons() {
    awk '/^---- .* stdout ----$/ { print ""; print "  " $2; left = 12; next }
        /^stack backtrace:|^failures:|^note: / { left = 0 } left && NF { print "    " substr($0, 1, 400); left-- }' \
        .build/cargo-test.log
    grep -aE '^(FAILED|ERROR) ' .build/pytest.log | cut -c 1-600 | sed 's/^/  /'
}
verdict() { if [ "$1" = 0 ]; then echo "ok    "; else echo "FAILED"; fi; }

printf '\n== summary, after %d min %d s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60))
printf '  %s  Rust    %s\n' "$(verdict "$rust")" "$rust_totals"
printf '  %s  Python  %s\n' "$(verdict "$python")" "${python_totals:-did not run}"
printf '  %s  README  %s\n' "$(verdict "$features")" "${features_totals:-a row is not proved: see above}"
[ "$rust" = 0 ] && [ "$python" = 0 ] && [ "$features" = 0 ] && exit
reasons
exit 1
