#!/bin/sh
# Installs midge on this machine, or upgrades it, or takes it off again. As root:
#
#   ./install.sh                        from the unpacked archive that this script is in
#   install.sh --archive FILE           from an archive, midge-VERSION-linux-ARCH.tar.gz
#   install.sh --from URL               from a folder of archives: https://..., or a local path
#   install.sh --uninstall [--purge]
#
#   --archive FILE   the archive; SHA256SUMS has to be beside it, or --sha256 given
#   --from URL       where archives and SHA256SUMS are; the archive for this machine is taken.
#                    Without it and --archive: the folder that this script is in
#   --version V      which version, where there are several
#   --sha256 HEX     the hash that the archive must have, from a place you trust: over plain http
#                    SHA256SUMS tells accidents only
#   --prefix DIR     where the program goes, /usr/local unless said otherwise
#   --no-start       enable the service, but do not start or restart it
#   --no-deps        leave containerd and runc to me
#   --uninstall      stop midge and remove what was installed. Containers run on; the node's state,
#                    its configuration and containerd stay
#   --purge          with --uninstall: remove /var/lib/midge (identity, state, logs, volumes),
#                    /etc/midge, /run/midge and the containers and images of this node, for good
#   --help           this
#
# MIDGE_FROM, MIDGE_VERSION, MIDGE_SHA256 and MIDGE_PREFIX say the same as the options.
#
# Run again it upgrades: the binary is replaced in one step, the service restarted, and every
# container runs on. Needs a POSIX shell, tar, gzip, sha256sum, and for a URL curl or wget.
set -eu

say() { echo "midge: $*"; }
warn() { echo "midge: $*" >&2; }
die() { warn "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

usage() { sed -n '2,/^set -eu/{s/^# \{0,1\}//;/^set -eu/d;p;}' "$0"; }

archive='' from=${MIDGE_FROM:-} version=${MIDGE_VERSION:-} sha256=${MIDGE_SHA256:-}
prefix=${MIDGE_PREFIX:-/usr/local} start=yes deps=yes action=install purge=no
while [ $# -gt 0 ]; do
  case $1 in
  --archive | --from | --version | --sha256 | --prefix)
    [ $# -ge 2 ] || { warn "$1 needs a value; see --help"; exit 2; } ;;
  esac
  case $1 in
  --archive) archive=$2; shift ;;
  --from) from=$2; shift ;;
  --version) version=${2#v}; shift ;;
  --sha256) sha256=$2; shift ;;
  --prefix) prefix=${2%/}; shift ;;
  --no-start) start=no ;;
  --no-deps) deps=no ;;
  --uninstall) action=uninstall ;;
  --purge) purge=yes ;;
  -h | --help) usage; exit 0 ;;
  *) warn "no such option: $1; see --help"; exit 2 ;;
  esac
  shift
done
case $prefix in /*) ;; *) warn "--prefix has to begin with /: $prefix"; exit 2 ;; esac
if [ "$purge" = yes ] && [ "$action" != uninstall ]; then
  warn "--purge goes with --uninstall"
  exit 2
fi
share=$prefix/share/midge

scratch=''
fresh=''
finish() {
  [ -z "$scratch" ] || rm -rf "$scratch"
  [ -z "$fresh" ] || rm -f "$fresh"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

systemd_runs() { [ -d /run/systemd/system ] && have systemctl; }
openrc_runs() { [ -d /run/openrc ] && have rc-service && have rc-update; }

# The build for this machine. The kernel's word is not enough: boards run 64-bit kernels below
# 32-bit systems, whose containerd pulls images for 32 bits.
architecture() {
  machine=$(uname -m)
  if have getconf; then
    bits=$(getconf LONG_BIT)
  else
    # The fifth byte of a program says which it is for.
    case $(dd if=/bin/sh bs=1 skip=4 count=1 2>/dev/null | od -An -tu1 | tr -d ' ') in
    1) bits=32 ;;
    *) bits=64 ;;
    esac
  fi
  case $machine-$bits in
  x86_64-64 | amd64-64) echo x86_64 ;;
  aarch64-64 | arm64-64) echo aarch64 ;;
  aarch64-32 | arm64-32 | armv8l-32 | armv7l-32) echo armv7 ;;
  armv6l-*) die "there is no build for ARMv6 (Raspberry Pi 1 and Zero): midge needs ARMv7 or later" ;;
  *) die "there is no build for $machine with $bits bits, only for x86_64, aarch64 and armv7" ;;
  esac
}

fetch() { # ADDRESS FILE
  case $1 in
  http://* | https://*)
    if have curl; then
      curl -fsSL --retry 3 -o "$2" "$1" || die "cannot download $1"
    elif have wget; then
      wget -q -O "$2" "$1" || die "cannot download $1"
    else
      die "curl or wget is needed to download $1"
    fi
    ;;
  *)
    [ -f "$1" ] || die "there is no $1"
    cp "$1" "$2" || die "cannot read $1"
    ;;
  esac
}

# Finds the name of the archive for this machine among SHA256SUMS.
archive_name() { # SUMS ARCH
  names=$(sed -n "s/^[0-9a-f]\{64\} [ *]\(midge-.*-linux-$2\.tar\.gz\)\$/\1/p" "$1")
  [ -z "$version" ] || names=$(echo "$names" | grep -Fx "midge-$version-linux-$2.tar.gz" || :)
  case $(echo "$names" | grep -c .) in
  0) die "SHA256SUMS of $from names no archive ${version:+of version $version }for $2" ;;
  1) echo "$names" ;;
  *) die "there are several: say which with --version:
$names" ;;
  esac
}

check() { # FILE NAME SUMS
  have sha256sum || die "sha256sum is needed to check the archive"
  expected=$sha256
  if [ -z "$expected" ]; then
    [ -f "$3" ] || die "there is no SHA256SUMS beside $2; give it, or --sha256"
    expected=$(awk -v name="$2" '$2 == name || $2 == "*" name { print $1; exit }' "$3")
    [ -n "$expected" ] || die "SHA256SUMS does not name $2"
  fi
  actual=$(sha256sum "$1" | cut -d' ' -f1)
  [ "$actual" = "$expected" ] || die "$2 is damaged or not what it says: its SHA256 is
  $actual
and should be
  $expected
Nothing was changed."
}

# Leaves what is to be installed at $tree.
obtain() {
  arch=$(architecture) || exit 1
  here=$(cd "$(dirname "$0")" && pwd)
  if [ -z "$archive$from" ]; then
    if [ -f "$here/midge" ] && [ -f "$here/systemd/midge.service" ]; then
      tree=$here
      return
    fi
    [ -f "$here/SHA256SUMS" ] || die "say from where: --archive FILE or --from URL; see --help"
    from=$here
  fi
  scratch=$(mktemp -d) || die "cannot make a temporary folder"
  if [ -n "$archive" ]; then
    [ -f "$archive" ] || die "there is no $archive"
    name=$(basename "$archive")
    cp "$archive" "$scratch/archive"
    sums=$(dirname "$archive")/SHA256SUMS
  else
    sums=$scratch/SHA256SUMS
    fetch "${from%/}/SHA256SUMS" "$sums"
    name=$(archive_name "$sums" "$arch") || exit 1
    say "taking ${from%/}/$name"
    fetch "${from%/}/$name" "$scratch/archive"
  fi
  case $name in
  *-linux-"$arch".tar.gz) ;;
  *-linux-*.tar.gz) die "$name is for another machine: this one is $arch. Nothing was changed." ;;
  esac
  check "$scratch/archive" "$name" "$sums"
  mkdir "$scratch/tree"
  gzip -dc "$scratch/archive" | tar -xf - -C "$scratch/tree" || die "cannot unpack $name"
  tree=$(echo "$scratch"/tree/midge-*)
  [ -f "$tree/midge" ] || die "$name holds no midge"
}

# Puts a file where it belongs in one step, durably: whoever looks sees the old or the new one.
put() { # MODE FROM TO
  mkdir -p "$(dirname "$3")"
  fresh=$3.new.$$
  cp "$2" "$fresh" || die "cannot write $3: is the disk full? What was there is as it was."
  chmod "$1" "$fresh"
  sync "$fresh" 2>/dev/null || sync
  mv -f "$fresh" "$3"
  fresh=''
  grep -Fxq "$3" "$share/files" 2>/dev/null || echo "$3" >>"$share/files"
}

install_packages() {
  missing=''
  have containerd || missing=' containerd'
  have runc || have crun || missing="$missing runc"
  [ -n "$missing" ] || return 0
  if [ "$deps" = no ]; then
    warn "missing, and needed to run containers:$missing"
    return 0
  fi
  say "installing$missing"
  # shellcheck disable=SC2086 # the packages, one word each
  if have apt-get; then
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
      --no-install-recommends $missing
  elif have dnf; then
    dnf install -y $missing
  elif have zypper; then
    zypper --non-interactive install $missing
  elif have pacman; then
    pacman -S --needed --noconfirm $missing
  elif have apk; then
    apk add $missing
  else
    false
  fi || die "please install$missing (containerd 1.6 or newer) by this system's own
means, or from https://containerd.io/downloads, and run this again; or use --no-deps.
Nothing of midge was changed."
}

add_group() {
  grep -q '^midge:' /etc/group 2>/dev/null && return 0
  if have groupadd; then groupadd --system midge
  elif have addgroup; then addgroup -S midge
  else false
  fi || warn "cannot make the group midge: only root can use the daemon's socket"
}

# Keeps what manages networks off midge's interfaces, where it is there.
quiet_networks() {
  if [ -d /etc/systemd/network ]; then
    put 644 "$tree/systemd/midge.network" /etc/systemd/network/10-midge.network
    ! systemd_runs || systemctl try-reload-or-restart systemd-networkd.service || :
  fi
  if [ -d /etc/NetworkManager ]; then
    put 644 "$tree/systemd/midge.networkmanager.conf" /etc/NetworkManager/conf.d/midge.conf
    ! systemd_runs || systemctl try-reload-or-restart NetworkManager.service || :
  fi
  [ ! -f /etc/dhcpcd.conf ] || quiet_dhcpcd
}

# It reads no other file, and what is after an `interface` line of that file is of that one alone.
quiet_dhcpcd() {
  { cat "$tree/systemd/midge.dhcpcd.conf" && without_ours; } >"$scratch/dhcpcd.conf"
  [ "$(cat "$scratch/dhcpcd.conf")" != "$(cat /etc/dhcpcd.conf)" ] || return 0
  # Into the file that is there: it keeps its owner and mode.
  cat "$scratch/dhcpcd.conf" >/etc/dhcpcd.conf
  ! systemd_runs || systemctl try-restart dhcpcd.service || :
}

without_ours() { sed '/^# midge: begin/,/^# midge: end/d' /etc/dhcpcd.conf; }

# Confines containers, where the kernel has AppArmor. Without it they run all the same.
confine() {
  [ -d /etc/apparmor.d ] || return 0
  put 644 "$tree/systemd/midge.apparmor" /etc/apparmor.d/midge-default
  [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ] || return 0
  { have apparmor_parser &&
    apparmor_parser --replace --write-cache /etc/apparmor.d/midge-default; } ||
    warn "the AppArmor profile for containers cannot be loaded; midge doctor says what to do"
}

run_service() {
  if systemd_runs; then run_by_systemd
  elif openrc_runs; then run_by_openrc
  else
    say "this system runs neither systemd nor OpenRC. What is left to do: start containerd at boot,
and after it, as root: $prefix/bin/midge daemon"
  fi
}

run_by_systemd() {
  sed "s|^ExecStart=/usr/bin/midge|ExecStart=$prefix/bin/midge|" "$tree/systemd/midge.service" \
    >"$scratch/midge.service"
  put 644 "$scratch/midge.service" /etc/systemd/system/midge.service
  systemctl daemon-reload
  systemctl enable midge.service
  if [ "$start" = yes ]; then
    systemctl enable --now containerd.service || warn "containerd does not start; midge waits for it"
    # Starts it as well, where it was not running.
    systemctl restart midge.service ||
      die "midge is installed but does not start; journalctl -u midge says why"
  fi
}

run_by_openrc() {
  sed "s|^command=/usr/bin/midge|command=$prefix/bin/midge|" "$tree/openrc/midge.initd" \
    >"$scratch/midge.initd"
  put 755 "$scratch/midge.initd" /etc/init.d/midge
  rc-update add midge default
  if [ "$start" = yes ]; then
    { rc-update add containerd default && rc-service --ifstopped containerd start; } ||
      warn "containerd does not start; midge waits for it"
    # Starts it as well, where it was not running.
    rc-service midge restart ||
      die "midge is installed but does not start; its log says why: /var/log/messages or
/var/log/midge.log"
  fi
}

install_midge() {
  if have dpkg-query && dpkg-query -W -f='${Status}' midge 2>/dev/null | grep -q ' installed'; then
    die "midge is installed as a package here: upgrade it with apt, or remove it first"
  fi
  obtain
  [ -n "$scratch" ] || scratch=$(mktemp -d)
  new=$("$tree/midge" --version) || die "the program does not run on this machine"
  old=$("$prefix/bin/midge" --version 2>/dev/null) || old=''
  install_packages
  add_group
  mkdir -p "$share"
  put 755 "$tree/install.sh" "$share/install.sh"
  put 755 "$tree/systemd/purge.sh" "$share/purge.sh"
  put 644 "$tree/LICENSE" "$share/LICENSE"
  put 755 "$tree/midge" "$prefix/bin/midge"
  for page in "$tree"/man/*.1; do
    put 644 "$page" "$prefix/share/man/man1/$(basename "$page")"
  done
  put 644 "$tree/completions/midge.bash" "$prefix/share/bash-completion/completions/midge"
  put 644 "$tree/completions/_midge" "$prefix/share/zsh/site-functions/_midge"
  put 644 "$tree/completions/midge.fish" "$prefix/share/fish/vendor_completions.d/midge.fish"
  quiet_networks
  confine
  run_service
  say "installed $new${old:+, before it $old} at $prefix/bin/midge"
  [ -n "$old" ] || say "next: midge swarm init, or the midge swarm join that a manager printed"
}

uninstall_midge() {
  [ -f "$share/files" ] || die "nothing was installed below $prefix; another --prefix?"
  if systemd_runs; then
    systemctl disable --now midge.service || warn "midge.service cannot be stopped"
  elif openrc_runs; then
    rc-service --ifstarted midge stop || warn "the service midge cannot be stopped"
    rc-update del midge default || :
  fi
  if [ "$purge" = yes ]; then
    say "removing containers and images of this node, /var/lib/midge, /etc/midge and /run/midge"
    sh "$share/purge.sh" || die "the program was not removed either; it is stopped, and no longer
started at boot. Run this again once that is mended."
    ! grep -q '^midge-default ' /sys/kernel/security/apparmor/profiles 2>/dev/null ||
      printf midge-default >/sys/kernel/security/apparmor/.remove || :
  fi
  while read -r file; do
    rm -f "$file"
  done <"$share/files"
  rm -rf "$share"
  if grep -q '^# midge: begin' /etc/dhcpcd.conf 2>/dev/null; then
    scratch=$(mktemp -d)
    without_ours >"$scratch/dhcpcd.conf"
    cat "$scratch/dhcpcd.conf" >/etc/dhcpcd.conf
  fi
  ! systemd_runs || systemctl daemon-reload
  if [ "$purge" = yes ]; then
    say "removed, with all state. containerd, runc and the group midge stay"
  else
    say "removed. /var/lib/midge and /etc/midge stay, and containers run on; midge, installed again,
takes them over. containerd, runc and the group midge stay as well"
  fi
}

[ "$(id -u)" = 0 ] || die "run this as root, for example with sudo"
case $action in
install) install_midge ;;
uninstall) uninstall_midge ;;
esac
