# flags: -ip4-src-group=5
# in: none
# doctor: no-such-interface warning
# The interface has another name by now.
nft 'table inet t { chain c { type filter hook prerouting priority -300; iifname "eth7" meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
