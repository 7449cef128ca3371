# flags: -ip4-src-group=5
# in: all
# doctor: OK
# A rule notes the source in a map, which nft 1.0.6 has no JSON for, and logs it.
nft 'table inet t { map seen { type ipv4_addr : mark; size 65535; flags dynamic,timeout; timeout 1m; }
    chain c { type filter hook input priority 0; meta nfproto ipv4 update @seen { ip saddr : 0x1 } log group 5 snaplen 20 queue-threshold 50; }; }'
