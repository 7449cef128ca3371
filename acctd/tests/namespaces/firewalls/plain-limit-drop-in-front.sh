# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: limit
# A limit for all, with a drop beyond it.
nft 'table inet t { chain c { type filter hook input priority 0; limit rate over 2/minute drop; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
