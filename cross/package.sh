#!/usr/bin/env bash
# Makes dist/: an archive and a Debian package for each architecture, install.sh and SHA256SUMS.
#
#   cross/package.sh ARCH ...       of x86_64, aarch64, armv7
#
# With MIDGE_BINARY=FILE and one architecture that file is packed and nothing built; DIST=FOLDER
# receives everything instead of dist/ and is emptied before.
#
# Everything in them has the time of the commit, so that two builds of one commit are equal. Besides
# what cross/build.sh needs: dpkg-deb, GNU tar.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
export LC_ALL=C TZ=UTC
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
export SOURCE_DATE_EPOCH

[ $# -gt 0 ] || { echo "usage: $0 x86_64|aarch64|armv7 ..." >&2; exit 2; }

triple() {
  case $1 in
  x86_64 | aarch64) echo "$1-unknown-linux-gnu" ;;
  armv7) echo armv7-unknown-linux-gnueabihf ;;
  *) echo "$0: no such architecture: $1 (x86_64, aarch64, armv7)" >&2; exit 2 ;;
  esac
}

binary() { echo "${MIDGE_BINARY:-target/$(triple "$1")/release/midge}"; }

# Pages and completions come from the program itself, and are the same for all: from one that runs
# here.
documents() { # FOLDER
  local arch runs=''
  for arch in "${archs[@]}"; do
    ! "$(binary "$arch")" --version >/dev/null 2>&1 || runs=$(binary "$arch")
  done
  if [ -z "$runs" ]; then
    cargo build --locked
    runs=target/debug/midge
  fi
  mkdir -p "$1/completions" "$1/man"
  "$runs" completion bash >"$1/completions/midge.bash"
  "$runs" completion zsh >"$1/completions/_midge"
  "$runs" completion fish >"$1/completions/midge.fish"
  "$runs" man --dir "$1/man" >/dev/null
}

settle() { # FOLDER: everything in it is as old as the commit
  find "$1" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
}

archive() { # ARCH
  local name=midge-$version-linux-$1
  local tree=$work/$name
  mkdir "$tree"
  install -m 755 "$(binary "$1")" "$tree/midge"
  install -m 755 install.sh "$tree"
  install -m 644 LICENSE README.md CHANGELOG.md "$tree"
  cp -r docs systemd openrc "$work/documents/completions" "$work/documents/man" "$tree"
  chmod -R u=rwX,go=rX "$tree"
  tar --create --directory "$work" --format=gnu --sort=name --owner=0 --group=0 --numeric-owner \
    --mtime="@$SOURCE_DATE_EPOCH" "$name" | gzip -9n >"$dist/$name.tar.gz"
}

debian() { # ARCH
  local arch root=$work/debian-$1
  case $1 in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; armv7) arch=armhf ;; esac
  put() { install -D -m "$1" "$2" "$root/$3"; }
  put 755 "$(binary "$1")" usr/bin/midge
  put 644 systemd/midge.service usr/lib/systemd/system/midge.service
  put 644 systemd/midge.sysusers usr/lib/sysusers.d/midge.conf
  put 644 systemd/midge.network usr/lib/systemd/network/10-midge.network
  put 644 systemd/midge.networkmanager.conf usr/lib/NetworkManager/conf.d/midge.conf
  put 644 systemd/midge.apparmor etc/apparmor.d/midge-default
  put 644 systemd/midge.dhcpcd.conf usr/share/doc/midge/dhcpcd.conf
  put 644 README.md usr/share/doc/midge/README.md
  local guide
  for guide in docs/*.md; do put 644 "$guide" "usr/share/doc/midge/$guide"; done
  put 644 "$work/documents/completions/midge.bash" usr/share/bash-completion/completions/midge
  put 644 "$work/documents/completions/_midge" usr/share/zsh/vendor-completions/_midge
  put 644 "$work/documents/completions/midge.fish" usr/share/fish/vendor_completions.d/midge.fish
  local page
  for page in "$work"/documents/man/*.1; do
    put 644 "$page" "usr/share/man/man1/${page##*/}"
  done
  gzip -9n "$root"/usr/share/man/man1/*.1
  gzip -9nc CHANGELOG.md >"$root/usr/share/doc/midge/changelog.gz"
  copyright >"$root/usr/share/doc/midge/copyright"
  control "$arch" "$root"
  settle "$root"
  # One thread: how xz splits its work is part of the bytes.
  dpkg-deb --root-owner-group --threads-max=1 -Zxz --build "$root" \
    "$dist/midge_${version}_$arch.deb" >/dev/null
}

copyright() {
  cat <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: midge

Files: *
Copyright: the authors of midge
License: Apache-2.0
 On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.
END
}

control() { # DEBIAN-ARCH ROOT
  local size script
  size=$(find "$2" -type f -printf '%s\n' | awk '{ all += int(($1 + 1023) / 1024) } END { print all }')
  mkdir "$2/DEBIAN"
  cat >"$2/DEBIAN/control" <<END
Package: midge
Version: $version
Architecture: $1
Maintainer: the authors of midge <midge@localhost>
Installed-Size: $size
Depends: containerd (>= 1.6~) | containerd.io, runc | crun | containerd.io, init-system-helpers
Recommends: nftables
Suggests: apparmor
Section: admin
Priority: optional
Description: single-binary edge orchestrator
 Turns Raspberry Pis and servers, ARM and x86, into one cluster that runs
 containers. It does what Docker Swarm mode does, with no Docker: workers drive
 containerd directly, and nodes talk QUIC with mutual TLS.
END
  echo /etc/apparmor.d/midge-default >"$2/DEBIAN/conffiles"
  for script in preinst postinst prerm postrm; do
    install -m 755 "cross/debian/$script" "$2/DEBIAN/$script"
  done
  # Only a purge removes state, and by then the package's own files are gone.
  sed -i -e '/^# purge\.sh$/{r systemd/purge.sh' -e 'd}' "$2/DEBIAN/postrm"
  (cd "$2" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$2/DEBIAN/md5sums"
}

archs=("$@")
if [ -z "${MIDGE_BINARY:-}" ]; then
  for arch in "${archs[@]}"; do cross/build.sh "$arch"; done
elif [ $# -gt 1 ]; then
  echo "$0: MIDGE_BINARY is of one architecture" >&2
  exit 2
fi
dist=${DIST:-dist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
documents "$work/documents"
rm -rf "$dist"
mkdir -p "$dist"
for arch in "${archs[@]}"; do
  archive "$arch"
  debian "$arch"
done
install -m 755 install.sh "$dist"
(cd "$dist" && sha256sum ./*.tar.gz ./*.deb ./install.sh | sed 's|\./||' >SHA256SUMS)
ls -l "$dist"
