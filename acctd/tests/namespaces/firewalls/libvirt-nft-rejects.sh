# traffic: forward
# flags: -ip4-src-group=5
# in: none
# live: yes
# doctor: behind-verdict warning
# says: reject
# A rule behind libvirt's table, for what goes to its guests: what is new is rejected.
ip link set wan0 down
ip link set wan0 name virbr0
ip link set virbr0 up
ip link add wan0 type bridge mcast_snooping 0
ip route add 10.255.0.0/16 via 10.254.0.2
nft -f $RULES/libvirt.nft
nft 'table inet mine { chain f { type filter hook forward priority 10; oifname "virbr0" meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
