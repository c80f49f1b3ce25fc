#!/usr/bin/env bash
# Runs every fuzz target: fuzz.sh SECONDS, for each. What fails stays in target/fuzz/failures; what is new to a
# target's corpus stays in target/fuzz/corpus for the next run. fuzz.sh clippy only looks at their sources.
source "$(dirname "$0")/../docker/stack/lib.sh"

(($# == 1)) || die "usage: fuzz.sh SECONDS|clippy"
seconds=$1
crate=exec-worker/confine/fuzz
host=$(rustc --version --verbose | sed -n 's/^host: //p')
CARGO_TARGET_DIR=$(target_dir)/fuzz
export CARGO_TARGET_DIR

# What cargo-fuzz would pass, less the sanitizer, which only a nightly toolchain has: nothing that is fuzzed is
# unsafe. With --target, so that what runs during the build is left as it is.
counters=(--cfg fuzzing -C passes=sancov-module -C codegen-units=1
  -C llvm-args=-sanitizer-coverage-level=4 -C llvm-args=-sanitizer-coverage-inline-8bit-counters
  -C llvm-args=-sanitizer-coverage-pc-table -C llvm-args=-sanitizer-coverage-trace-compares)
export RUSTFLAGS=${counters[*]}
build=(--release --locked --target "$host" --manifest-path "$crate/Cargo.toml")
if [[ $seconds == clippy ]]; then
  exec cargo clippy "${build[@]}" -- -D warnings
fi
cargo build "${build[@]}"

for source in "$crate"/src/*.rs; do
  target=$(basename "$source" .rs)
  corpus=$CARGO_TARGET_DIR/corpus/$target
  failures=$CARGO_TARGET_DIR/failures/$target
  log=$CARGO_TARGET_DIR/$target.log
  mkdir -p "$corpus" "$failures"
  if ! "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
    -print_final_stats=1 -artifact_prefix="$failures/" "$corpus" "$crate/seeds/$target" &>"$log"; then
    tail -n 40 "$log" >&2
    die "$target fails; keep the input in $crate/seeds/$target when it is mended"
  fi
  say "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs"
done
