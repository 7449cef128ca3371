# flags: -ip4-src-group=5
# in: all
# doctor: OK
# What the first rule logs does not come to the second.
nft 'table inet t { chain c { type filter hook input priority 0; meta nfproto ipv4 meta l4proto udp log group 5 snaplen 20 queue-threshold 50 accept; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
