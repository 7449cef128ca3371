# flags: -ip4-src-group=5
# in: all
# doctor: OK
# The rule has a list of interfaces, as with VRFs.
nft 'table inet t { chain c { type filter hook prerouting priority -300; iifname { "lan0", "wan0" } meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
