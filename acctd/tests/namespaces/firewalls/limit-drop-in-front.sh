# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: limit
# A limit per source, with a drop beyond it.
nft 'table inet t { set s { type ipv4_addr; size 65535; flags dynamic; }
    chain c { type filter hook input priority 0; update @s { ip saddr limit rate over 1/minute burst 1 packets } drop; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
