# flags: -ip4-src-group=5
# in: all
# doctor: OK
# What connection tracking does not know is dropped on prerouting.
nft 'table inet t { chain pre { type filter hook prerouting priority -150; ct state invalid drop; }; chain in { type filter hook input priority 0; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
