# flags: -ip4-src-group=5
# in: part
# doctor: some-states error
# Only the first packet of a connection is logged.
nft 'table inet t { chain c { type filter hook input priority 0; ct state new meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
