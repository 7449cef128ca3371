# flags: -ip4-src-group=5
# in: none
# doctor: no-such-interface warning
# A set of interfaces, of which none is there.
nft 'table inet t { chain c { type filter hook prerouting priority -300; iifname { "eth7", "eth8" } meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
