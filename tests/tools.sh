#!/usr/bin/env bash
# Installs what building (build), the demonstration (demo), testing (test, root, vm) or fuzzing (fuzz)
# needs and this machine lacks. Does nothing where all of it is there. Knows Debian, Ubuntu and Raspberry Pi OS.
set -euo pipefail

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

missing() { # COMMAND PACKAGE ...: prints the packages whose command is not there
  while [ $# -gt 0 ]; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null || echo "$2"
    shift 2
  done
}

install_packages() { # COMMAND PACKAGE ...
  local packages
  packages=$(missing "$@")
  [ -n "$packages" ] || return 0
  if ! command -v apt-get >/dev/null; then
    echo "These are missing, and this script only knows apt-get; please install them:" $packages >&2
    exit 1
  fi
  # shellcheck disable=SC2086
  { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends $packages; } >/dev/null
}

build() {
  install_packages cc gcc ld binutils protoc protobuf-compiler curl curl make make
  [ -e /usr/lib/*-linux-gnu*/libc.a ] 2>/dev/null || install_packages no-libc libc6-dev
  export PATH="$HOME/.cargo/bin:$PATH"
  if ! command -v cargo >/dev/null; then
    local version
    version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
      sh -s -- -y --profile minimal --component clippy,rustfmt --default-toolchain "$version"
  fi
}

demo() {
  install_packages ip iproute2 containerd containerd runc runc curl curl nsenter util-linux
}

test_tools() {
  demo
  install_packages busybox busybox-static docker-registry docker-registry nft nftables
  root || echo "a Debian to install midge on is not to be had here" >&2
  [ -e /usr/lib/binfmt.d/qemu-arm.conf ] || install_packages no-emulator qemu-user-static ||
    echo "an emulator of ARM is not to be had here" >&2
  # Newer releases have the docker command alone; the tests that drive it say so where it is missing.
  install_packages docker docker-cli || echo "docker-cli is not to be had here" >&2
  export PATH="$HOME/.cargo/bin:$PATH"
  command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
}

# What the Debians below have.
packages=systemd-sysv,dbus,containerd,runc,iproute2,nftables

# A Debian with containerd and systemd, for the tests that install midge on one. Fails where it cannot
# be fetched.
root() {
  local root=target/debian
  [ ! -e $root ] || return 0
  install_packages debootstrap debootstrap systemd-nspawn systemd-container && mkdir -p target &&
    as_root rm -rf $root.new &&
    as_root timeout 900 debootstrap --variant=minbase --include=$packages bookworm $root.new >/dev/null &&
    as_root mv $root.new $root
}

# The same with a kernel, for an emulated machine of an architecture; its first virtual console is a
# shell of root's.
vm() { # ARCH
  local vm=target/vm/$1 debian kernel system tree
  case $1 in
  x86_64) debian=amd64 kernel=cloud-amd64 system=x86 ;;
  aarch64) debian=arm64 kernel=cloud-arm64 system=arm ;;
  armv7) debian=armhf kernel=armmp-lpae system=arm ;;
  *) echo "$0: no such architecture: $1 (x86_64, aarch64, armv7)" >&2; exit 2 ;;
  esac
  [ ! -e "$vm" ] || return 0
  install_packages "qemu-system-${1/armv7/arm}" qemu-system-$system mmdebstrap mmdebstrap mke2fs e2fsprogs
  [ -e /usr/share/seabios ] || install_packages no-bios seabios
  # Another architecture's programs run as the packages are set up.
  [ "$1" = "$(uname -m)" ] || install_packages qemu-arm-static qemu-user-static arch-test arch-test
  tree=$(mktemp -d)
  # One of armhf is made without the driver of the disk.
  as_root mmdebstrap --quiet --architectures=$debian --variant=minbase \
    --essential-hook='mkdir -p "$1/usr/share/initramfs-tools/modules.d"' \
    --essential-hook='echo virtio_blk >"$1/usr/share/initramfs-tools/modules.d/disk"' \
    --include=linux-image-$kernel,busybox-static,apparmor,udev,kmod,procps,$packages \
    trixie "$tree/root" http://deb.debian.org/debian
  as_root tee "$tree/root/etc/systemd/system/shell.service" >/dev/null <<'END'
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/bash --noprofile --norc --noediting
StandardInput=tty-force
StandardOutput=tty
TTYPath=/dev/hvc0
Restart=always
RestartSec=1
WorkingDirectory=/root
Environment=HOME=/root PS1= TERM=dumb
END
  as_root mkdir -p "$tree/root/etc/systemd/system/multi-user.target.wants"
  as_root ln -s ../shell.service "$tree/root/etc/systemd/system/multi-user.target.wants/"
  as_root ln -s /dev/null "$tree/root/etc/systemd/system/serial-getty@hvc0.service"
  rm -rf "$vm.new" && mkdir -p "$vm.new"
  as_root cp "$tree"/root/boot/vmlinuz-* "$vm.new/kernel"
  as_root cp "$tree"/root/boot/initrd.img-* "$vm.new/initrd"
  as_root cp "$tree/root/bin/busybox" "$vm.new/busybox"
  truncate -s 4G "$vm.new/disk.img"
  as_root mke2fs -q -t ext4 -d "$tree/root" "$vm.new/disk.img"
  as_root rm -rf "$tree"
  mv "$vm.new" "$vm"
}

case ${1:-} in
build) build ;;
demo) demo ;;
test) test_tools ;;
root) root ;;
vm) vm "${2:?which architecture?}" ;;
fuzz) install_packages c++ g++ ;; # libFuzzer is written in it
*) echo "usage: $0 build|demo|test|root|vm ARCH|fuzz" >&2; exit 2 ;;
esac
