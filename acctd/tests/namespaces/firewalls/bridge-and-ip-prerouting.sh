# flags: -ip4-src-group=5
# in: more
# doctor: logged-twice error
# Rules on the bridge's prerouting and on that of IP, for one group.
ip link add br0 type bridge mcast_snooping 0
ip link set br0 address $(cat /sys/class/net/lan0/address) up
ip addr flush dev lan0
ip link set lan0 master br0
ip addr add 10.9.0.1/24 dev br0
ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev br0
ip route replace 10.1.0.0/16 via 10.9.0.2 dev br0
nft 'table bridge t { chain c { type filter hook prerouting priority -300; meta protocol ip log group 5 snaplen 20 queue-threshold 50; }; }'
nft 'table inet t { chain c { type filter hook prerouting priority -300; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
