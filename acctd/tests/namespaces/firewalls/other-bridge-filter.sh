# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: bridge
# The bridge drops frames before IP sees them.
ip link add br0 type bridge mcast_snooping 0
ip link set br0 address $(cat /sys/class/net/lan0/address) up
ip addr flush dev lan0
ip link set lan0 master br0
ip addr add 10.9.0.1/24 dev br0
ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev br0
ip route replace 10.1.0.0/16 via 10.9.0.2 dev br0
nft 'table bridge f { chain p { type filter hook prerouting priority -300; ip saddr 10.1.0.0/29 drop; }; }'
$ACCTD rules --apply -ip4-src-group=5
