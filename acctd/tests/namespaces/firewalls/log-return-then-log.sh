# flags: -ip4-src-group=5
# in: all
# doctor: OK
# What the first rule logs returns.
nft 'table inet t { chain d { meta l4proto udp log group 5 snaplen 20 queue-threshold 50 return; log group 5 snaplen 20 queue-threshold 50; }; chain c { type filter hook input priority 0; meta nfproto ipv4 jump d; }; }'
