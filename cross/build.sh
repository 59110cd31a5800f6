#!/usr/bin/env bash
# Builds the static release binary for one architecture, without Docker:
#
#   cross/build.sh [x86_64|aarch64|armv7]     this machine's without an argument
#
# It ends up at target/TARGET/release/midge. Two builds of one commit by one toolchain are equal byte
# for byte, wherever the sources are. What is missing is installed: the C compiler with apt-get, Rust's
# standard library with rustup. Exits with 3 where they are not to be had.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

machine=$(uname -m)
case $machine in armv7l | armv6l | armv8l) machine=armv7 ;; esac
arch=${1:-$machine}
case $arch in
x86_64) target=x86_64-unknown-linux-gnu gnu=x86_64-linux-gnu package=x86-64-linux-gnu libc=amd64 ;;
aarch64) target=aarch64-unknown-linux-gnu gnu=aarch64-linux-gnu package=$gnu libc=arm64 ;;
armv7) target=armv7-unknown-linux-gnueabihf gnu=arm-linux-gnueabihf package=$gnu libc=armhf ;;
*) echo "$0: no such architecture: $arch (x86_64, aarch64, armv7)" >&2; exit 2 ;;
esac

compiler=cc
if [ "$arch" != "$machine" ]; then
  compiler=$gnu-gcc
  if ! command -v "$compiler" >/dev/null; then
    if ! command -v apt-get >/dev/null; then
      echo "$0: $compiler is missing, and this script only knows apt-get; please install it" >&2
      exit 3
    fi
    { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y \
        -qq --no-install-recommends "gcc-$package" "libc6-dev-$libc-cross"; } >/dev/null || exit 3
  fi
fi
if [ ! -d "$(rustc --print target-libdir --target "$target")" ]; then
  if ! command -v rustup >/dev/null; then
    echo "$0: rustc has no standard library for $target, and there is no rustup to get it with" >&2
    exit 3
  fi
  timeout 900 rustup target add "$target" || exit 3
fi

# Linked statically: one file that runs on a machine with no libraries. At a fixed address: each
# process of it, one a container, would have 0.4 MiB of pointers of its own to relocate.
flags=(-C target-feature=+crt-static -C relocation-model=static)
case $arch in
# With a register of its own for the frame, places in it and the tables for unwinding are shorter.
x86_64) flags+=(-C force-frame-pointers=yes) ;;
# LLVM makes a function of what is there twice. It does not count the function's entries in the tables
# for unwinding, which are as long as this.
aarch64) flags+=(-C llvm-args=-outliner-benefit-threshold=28) ;;
# Instructions of two bytes where they do: a third less code. Every ARMv7-A has them. (Not with the
# outliner: it leaves half of what it puts on the stack out of the tables for unwinding.)
armv7) flags+=(-C target-feature=+thumb-mode) ;;
esac
# Rust comes with lld, which keeps one copy of equal functions.
sysroot=$(rustc --print sysroot)
lld=$sysroot/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/gcc-ld
if [ -e "$lld/ld.lld" ]; then
  flags+=(-C "link-arg=-B$lld" -C link-arg=-fuse-ld=lld -C "link-arg=-Wl,--icf=all")
fi
# Panics name source files: as in every other folder, home and toolchain. The standard library's own
# names are rewritten only where its source is installed, so they are written back.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
flags+=(
  "--remap-path-prefix=$PWD=/midge"
  "--remap-path-prefix=$cargo_home=/cargo"
  "--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rustc/$commit"
)
# As TOML, which takes spaces. For the target only: build scripts and macros are built as usual.
list=$(printf ', "%s"' "${flags[@]}")
under=${target//-/_}
# Not for this machine's own, where it is the linker of build scripts too: they would all be built anew
# whenever another architecture was built in between.
if [ "$compiler" != cc ]; then
  export "CC_$under=$compiler" "CARGO_TARGET_${under^^}_LINKER=$compiler"
fi
export CC_SHELL_ESCAPED_FLAGS=1
export "CFLAGS_$under='-ffile-prefix-map=$PWD=/midge' '-ffile-prefix-map=$cargo_home=/cargo'"
cargo build --release --locked --target "$target" --config "target.$target.rustflags=[${list#, }]"
