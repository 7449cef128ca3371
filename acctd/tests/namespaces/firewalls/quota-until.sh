# flags: -ip4-src-group=5
# in: part
# doctor: limited error
# says: quota
# Logged until a quota is used up.
nft 'table inet t { chain c { type filter hook input priority 0; quota until 300 bytes meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
