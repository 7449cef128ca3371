# flags: -ip4-src-group=5
# in: all
# doctor: OK
# A limit that is not met now.
nft 'table inet t { set s { type ipv4_addr; size 65535; flags dynamic; }
    chain c { type filter hook input priority 0; update @s { ip saddr limit rate over 100000/second burst 10000 packets } drop; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
