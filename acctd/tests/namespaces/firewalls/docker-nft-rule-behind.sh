# traffic: forward
# flags: -ip4-src-group=5
# in: none
# live: yes
# doctor: behind-verdict warning
# says: counter drop
# A rule behind Docker's chains, of what goes to containers: what is new, and they do not publish, is dropped.
ip link add docker0 type bridge mcast_snooping 0
ip link set docker0 up
ip link set wan0 master docker0
ip route replace 10.255.0.0/16 dev docker0
ip neigh add 10.255.0.1 lladdr 02:00:00:00:00:01 dev docker0
nft -f $RULES/docker.nft
nft 'table ip mine { chain f { type filter hook forward priority 10; oifname "docker0" log group 5 snaplen 20 queue-threshold 50; }; }'
