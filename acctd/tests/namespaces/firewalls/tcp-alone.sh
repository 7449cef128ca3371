# flags: -ip4-src-group=5
# in: part
# doctor: some-protocols warning
# A rule for TCP alone.
nft 'table inet t { chain c { type filter hook input priority 0; meta nfproto ipv4 meta l4proto tcp log group 5 snaplen 20 queue-threshold 50; }; }'
