# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: limit rate over 1/minute
# The same, with a limit of each source and a drop beyond it.
nft 'table inet t { map seen { type ipv4_addr : mark; size 65535; flags dynamic,timeout; timeout 1m; }
    chain c { type filter hook input priority 0; add @seen { ip saddr limit rate over 1/minute burst 1 packets : 0x1 } drop; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
