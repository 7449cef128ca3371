# Two network namespaces for the experiments: `wire` sends, and `lab` has the rules, acctd and the TC program.
#
#   wire (wire0, 10.9.0.2) ── (lan0, 10.9.0.1) lab

ip netns add lab
ip netns add wire
ip -n lab link add lan0 type veth peer name wire0 netns wire
ip -n lab address add 10.9.0.1/24 dev lan0
ip -n wire address add 10.9.0.2/24 dev wire0
ip -n lab link set lan0 up
ip -n wire link set wire0 up
rm -rf target/lab
mkdir -p target/lab

# For the pinned maps. `ip netns exec` would hide them behind a /sys of its own.
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf

# lab COMMAND…: in the namespace.
lab() { nsenter --net=/run/netns/lab "$@"; }

# Waits until acctd, whose log is target/lab/log, has said this.
says() { timeout 30 sh -c 'until grep -q "$1" target/lab/log; do sleep 0.1; done' - "$1"; }
