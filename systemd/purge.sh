#!/bin/sh
# Removes all that a node of midge left on this machine, for good: its containers and images in
# containerd, what it made in the kernel, its state, its configuration. The daemon has to be stopped.
# `apt purge midge` and `install.sh --uninstall --purge` run it.
#
#   purge.sh [STATE RUN CONFIG]     /var/lib/midge, /run/midge and /etc/midge unless said otherwise
#
# CONTAINERD_ADDRESS names containerd's socket, as for ctr. Without an answer of containerd nothing is
# removed: whose containers they are only the state tells, and they would run on for ever.
set -u

state=${1:-/var/lib/midge} run=${2:-/run/midge} config=${3:-/etc/midge}
id=$(cat "$state/installation" 2>/dev/null)

in_namespace() { ctr --namespace "midge-$id" "$@"; }

refuse() {
  echo "midge: $*" >&2
  echo "Nothing of this node was removed: do that, and purge again. If its containers are gone with
containerd, remove the rest by hand: rm -rf $state $run $config" >&2
  exit 1
}

check_containerd() {
  command -v ctr >/dev/null 2>&1 ||
    refuse "ctr, which removes this node's containers, is missing: install the package containerd (on
Alpine containerd-ctr)"
  in_namespace version >/dev/null 2>&1 ||
    refuse "containerd does not answer, so this node's containers cannot be removed: start containerd"
}

remove_containers() {
  in_namespace tasks ls -q | while read -r it; do in_namespace tasks rm -f "$it"; done
  in_namespace containers ls -q | while read -r it; do in_namespace containers rm "$it"; done
  in_namespace images ls -q | while read -r it; do in_namespace images rm --sync "$it"; done
  in_namespace leases ls -q | while read -r it; do in_namespace leases rm --sync "$it"; done
  # A snapshot goes after those that are based on it; layers are not stacked deeper than this.
  for _ in $(seq 128); do
    left=$(in_namespace snapshots ls | awk 'NR > 1 { print $1 }')
    [ -n "$left" ] || break
    for it in $left; do in_namespace snapshots rm "$it"; done
  done 2>/dev/null
  in_namespace content ls -q | while read -r it; do in_namespace content rm "$it"; done
  ctr namespaces rm "midge-$id"
}

# Names are the hash of the id, as the daemon makes them.
remove_network() {
  digits=$(printf %s "$id" | sha256sum | cut -c1-8)
  ip -o link show master "mdg$digits" | sed 's/^[0-9]*: \([^:@]*\).*/\1/' |
    while read -r cable; do ip link delete "$cable"; done
  ip link delete "mdg$digits"
  # Without nft: rules for a bridge that is gone do nothing, until the next boot.
  # midge_forward stays: without it a machine that midge made forward would be a router until then.
  for family in ip ip6; do nft delete table "$family" "midge_$digits"; done
}

unmount() {
  # Inner mounts come later in the list.
  awk -v state="$state/" -v run="$run/" \
    'index($2, state) == 1 || index($2, run) == 1 { print $2 }' /proc/self/mounts | tac |
    while read -r it; do umount -l "$(printf '%b' "$it")"; done
}

if [ -n "$id" ]; then
  check_containerd
  remove_containers >/dev/null
  if [ -n "$(in_namespace containers ls -q)" ]; then
    echo "midge: containers are left in containerd's namespace midge-$id, and so is $state" >&2
    exit 1
  fi
  remove_network >/dev/null 2>&1
  find /sys/fs/cgroup -depth -type d -path "*/midge/$id*" -exec rmdir {} \; 2>/dev/null
  # Another installation's are left, and so is what holds them.
  rmdir /sys/fs/cgroup/midge /sys/fs/cgroup/*/midge 2>/dev/null
fi
unmount
# What is still mounted there may be somebody's data, not ours to remove.
if grep -qF -e " $state/" -e " $run/" /proc/self/mounts; then
  echo "midge: file systems are still mounted below $state or $run: they are left" >&2
  exit 1
fi
rm -rf "$state" "$run" "$config"
