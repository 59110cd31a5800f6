#!/usr/bin/env bash
# A cluster of three nodes on this machine: each a network namespace with a containerd and a midge
# of its own. Shows services on it, and leaves it running.
#
#   demo.sh up      start it and show it
#   demo.sh down    stop it and remove everything it made
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
MIDGE=${MIDGE:-$TOP/target/midge}
STATE=${MIDGE_DEMO_STATE:-/tmp/midge-demo}
PREFIX=midge-demo
NET=10.99.7
NODES="1 2 3"

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n== %s\n' "$*"; }
midge() { local node=$1; shift; "$MIDGE" -H "unix://$STATE/n$node/midge.sock" "$@"; }
# Shows the command as a user of node 1 would type it.
show() { echo; echo "\$ midge $*"; midge 1 "$@"; }

wait_for() { # WHAT COMMAND...: until the command succeeds, at most 30 s
  local what=$1 tries=0; shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 300 ]; then
      echo "gave up waiting for $what; the logs are in $STATE/n*/" >&2
      exit 1
    fi
    sleep 0.1
  done
}

network() {
  ip netns add "$PREFIX-switch"
  ip -n "$PREFIX-switch" link add br0 type bridge
  ip -n "$PREFIX-switch" link set br0 up
  for node in $NODES; do
    ip netns add "$PREFIX-$node"
    ip -n "$PREFIX-switch" link add "port$node" type veth peer name eth0 netns "$PREFIX-$node"
    ip -n "$PREFIX-switch" link set "port$node" master br0 up
    ip -n "$PREFIX-$node" link set lo up
    ip -n "$PREFIX-$node" addr add "$NET.$node/24" dev eth0
    ip -n "$PREFIX-$node" link set eth0 up
  done
  # The machine itself is on that network too, so that curl and a browser reach the services.
  ip link add "$PREFIX" type veth peer name host netns "$PREFIX-switch"
  ip -n "$PREFIX-switch" link set host master br0 up
  ip addr add "$NET.254/24" dev "$PREFIX"
  ip link set "$PREFIX" up
}

start_node() { # NODE
  local dir=$STATE/n$1
  mkdir -p "$dir"
  cat >"$dir/containerd.toml" <<TOML
version = 2
root = "$dir/containerd"
state = "$dir/run-containerd"
[grpc]
  address = "$dir/containerd.sock"
TOML
  # Each of these becomes the next by exec, so that the pid stays the one that is written down.
  setsid nsenter --net="/run/netns/$PREFIX-$1" containerd -c "$dir/containerd.toml" \
    >"$dir/containerd.log" 2>&1 </dev/null &
  echo $! >"$dir/containerd.pid"
  setsid nsenter --net="/run/netns/$PREFIX-$1" \
    unshare --uts sh -c 'hostname "$0" && exec "$@"' "node$1" \
    "$MIDGE" daemon --data-dir "$dir/data" --run-dir "$dir/run" --socket "$dir/midge.sock" \
    --containerd "$dir/containerd.sock" >"$dir/midge.log" 2>&1 </dev/null &
  echo $! >"$dir/midge.pid"
}

image() { # an image of this very binary
  local dir=$STATE/image
  mkdir -p "$dir"
  tar -C "$(dirname "$MIDGE")" --owner=0 --group=0 -cf "$dir/layer.tar" "$(basename "$MIDGE")"
  local diff arch
  diff=$(sha256sum "$dir/layer.tar" | cut -d' ' -f1)
  case $(uname -m) in
  x86_64) arch='"amd64"' ;;
  aarch64) arch='"arm64"' ;;
  *) arch='"arm","variant":"v7"' ;;
  esac
  printf '{"architecture":%s,"os":"linux","config":{"Entrypoint":["/midge","hello"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$arch" "$diff" >"$dir/config.json"
  printf '[{"Config":"config.json","RepoTags":["hello:1","hello:2"],"Layers":["layer.tar"]}]' \
    >"$dir/manifest.json"
  tar -C "$dir" -cf "$STATE/hello.tar" manifest.json config.json layer.tar
}

all_running() { # SERVICE COUNT
  [ "$(midge 1 service ls --filter "name=$1" --format '{{.Replicas}}')" = "$2/$2" ]
}

all_ready() {
  [ "$(midge 1 node ls --format '{{.Status}}' | grep -c Ready)" = "$(wc -w <<<"$NODES")" ]
}

# Asks every task of a service, at the port its node picked.
curl_tasks() {
  midge 1 service ps "$1" --filter desired-state=running --format '{{.Node}} {{.Ports}}' |
    while read -r node ports; do
      local port=${ports#*:}
      printf '%s port %s: ' "$node" "${port%%-*}"
      curl -sS --max-time 5 "http://$NET.${node#node}:${port%%-*}/"
    done
}

up() {
  [ "$(id -u)" = 0 ] || { echo "the demonstration makes network namespaces: run it as root" >&2; exit 1; }
  "$TOP/tests/tools.sh" demo
  down
  mkdir -p "$STATE"
  say "three nodes, each a network namespace with a containerd and a midge daemon"
  network
  for node in $NODES; do start_node "$node"; done
  for node in $NODES; do wait_for "node $node" midge "$node" version; done

  say "one makes the cluster, two join it over QUIC"
  show swarm init --advertise-addr "$NET.1"
  local token
  token=$(midge 1 swarm join-token -q worker)
  for node in 2 3; do
    echo "node$node\$ midge swarm join --token SWMTKN-1-... $NET.1:2377"
    midge "$node" swarm join --token "$token" "$NET.1:2377"
  done
  wait_for "all nodes to be ready" all_ready
  show node ls

  say "an image made of midge itself goes to every node: no registry is needed"
  image
  show image load --nodes all --input "$STATE/hello.tar"

  say "a service of six tasks, and one task on every node"
  show service create --name web --replicas 6 --publish mode=host,target=80 hello:1
  show service create --name everywhere --mode global --publish mode=host,target=80,published=8080 \
    hello:1 --text "one on each node"
  show service ls
  show service ps web
  echo
  curl_tasks web
  for node in $NODES; do curl -sS --max-time 5 "http://$NET.$node:8080/"; done

  say "a container is killed; its replacement follows"
  local victim
  victim=$(midge 2 ps --format '{{.ID}} {{.Names}}' | awk '/ web\./ {print $1; exit}')
  kill_container "$victim"
  wait_for "the replacement" history_of web
  wait_for "six tasks" all_running web 6
  show service ps web

  say "an update to hello:2, one task after another, each prepared before the old one stops"
  show service update --image hello:2 web

  say "node3 is drained; its tasks move"
  show node update --availability drain node3
  wait_for "the tasks to move" drained
  show service ps web --filter desired-state=running
  show node ls
  show node update --availability active node3

  say "the cluster goes on running; try"
  cat <<TEXT
  export MIDGE_HOST=unix://$STATE/n1/midge.sock PATH=$(dirname "$MIDGE"):\$PATH
  midge service scale web=9
  midge service logs web
  midge service ps web
  curl http://$NET.1:8080/
  DOCKER_HOST=\$MIDGE_HOST docker service ls      # the docker command works too

Remove it all with: make demo-down
TEXT
}

kill_container() { # ID: as a crash would
  local pid
  pid=$(curl -sS --unix-socket "$STATE/n2/midge.sock" "http://midge/containers/$1/json" |
    grep -o '"Pid":[0-9]*' | head -1 | cut -d: -f2)
  echo "\$ kill -9 $pid    # container $1 on node2"
  kill -9 "$pid"
}
history_of() { midge 1 service ps "$1" | grep -q '\\_'; }
drained() {
  ! midge 1 node ps node3 --filter desired-state=running -q | grep -q . && all_running web 6
}

down() {
  local pid dir
  for dir in "$STATE"/n*; do
    [ -d "$dir" ] || continue
    # The daemon first: it takes its containers, networks and mounts with it when it leaves.
    if [ -S "$dir/midge.sock" ]; then
      timeout 30 "$MIDGE" -H "unix://$dir/midge.sock" swarm leave --force >/dev/null 2>&1 || true
    fi
    for name in midge containerd; do
      [ -s "$dir/$name.pid" ] || continue
      pid=$(cat "$dir/$name.pid")
      end "$pid"
    done
    # What a daemon that was killed has left: shims of this node's containerd, and their mounts.
    for pid in $(pgrep -f "containerd-shim.*$dir/containerd.sock" || true); do end "$pid"; done
    awk -v dir="$dir/" 'index($2, dir) == 1 {print $2}' /proc/mounts | sort -r |
      while read -r mount; do umount -l "$mount" 2>/dev/null || true; done
  done
  for node in $NODES switch; do
    if [ -e "/run/netns/$PREFIX-$node" ]; then ip netns del "$PREFIX-$node"; fi
  done
  if ip link show "$PREFIX" >/dev/null 2>&1; then ip link del "$PREFIX"; fi
  rm -rf "$STATE"
}

end() { # PID: asks, then insists
  local tries=0
  kill "$1" 2>/dev/null || return 0
  while kill -0 "$1" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || kill -9 "$1" 2>/dev/null || true
    sleep 0.05
  done
}

case ${1:-} in
up) up ;;
down) down ;;
*) echo "usage: $0 up|down" >&2; exit 2 ;;
esac
