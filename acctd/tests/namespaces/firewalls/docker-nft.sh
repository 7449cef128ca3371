# traffic: forward
# in: all
# out: all
# live: yes
# doctor: OK
# Docker with its nftables back end, and acctd's rules for a router.
ip link add docker0 type bridge mcast_snooping 0
ip link set docker0 up
ip link set wan0 master docker0
ip route replace 10.255.0.0/16 dev docker0
ip neigh add 10.255.0.1 lladdr 02:00:00:00:00:01 dev docker0
nft -f $RULES/docker.nft
$ACCTD rules router --lan lan0 --apply -ip4-src-group=5 -ip4-dst-group=4
