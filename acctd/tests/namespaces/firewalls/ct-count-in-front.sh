# flags: -ip4-src-group=5
# in: all
# doctor: OK
# A bound on connections.
nft 'table inet t { set s { type ipv4_addr; size 65535; flags dynamic; }
    chain c { type filter hook input priority 0; ct state new add @s { ip saddr ct count over 2000 } drop; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
