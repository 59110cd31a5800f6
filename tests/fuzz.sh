#!/usr/bin/env bash
# Looks for inputs that break a parser: tests/fuzz.sh [SECONDS [PART OF A TARGET'S NAME]]
# Each target runs for so many seconds, 60 where none are given. What breaks one is written to
# target/fuzz/found; it belongs into tests/data/fuzz once the parser is mended. What is found on
# the way stays there too, and the next run begins with it.
set -euo pipefail
cd "$(dirname "$0")/.."

export MIDGE_FUZZ_SECONDS=${1:-60}
target=$(rustc -vV | sed -n 's/^host: //p')
# Its own folder: everything is compiled anew, with libFuzzer's counters in it.
export CARGO_TARGET_DIR=target/fuzz CARGO_PROFILE_TEST_OPT_LEVEL=1
export RUSTFLAGS="--cfg midge_fuzz -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"

tests() { cargo test --locked --quiet --lib --target "$target" -- "$@"; }

targets=$(tests --list --format terse | sed -n 's/^\(.*fuzz::[^:]*'"${2:-}"'[^:]*\): test$/\1/p')
[ -n "$targets" ] || { echo "no target is called ${2:-}" >&2; exit 2; }
broken=0
for name in $targets; do
  log=target/fuzz/${name##*::}.log
  if tests --exact "$name" --nocapture >"$log" 2>&1; then
    sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$log" | xargs printf '%-24s %10s inputs\n' "${name##*::}"
  else
    broken=1
    echo "${name##*::} is broken; $log says how" >&2
  fi
done
exit $broken
