# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: blocked
# Pairs of address and port are rejected.
nft 'table ip t { set blocked { type ipv4_addr . inet_service; elements = { 10.1.0.3 . 22, 10.1.0.4 . 8080 }; }
    chain in { type filter hook input priority 0; ip saddr . tcp dport @blocked reject with tcp reset; log group 5 snaplen 20 queue-threshold 50; }; }'
