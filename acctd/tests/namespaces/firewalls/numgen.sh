# flags: -ip4-src-group=5
# in: part
# doctor: limited error
# says: numgen
# One packet in ten is logged.
nft 'table inet t { chain c { type filter hook input priority 0; numgen inc mod 10 0 meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
