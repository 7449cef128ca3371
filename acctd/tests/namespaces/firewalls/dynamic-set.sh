# flags: -ip4-src-group=5
# in: part
# doctor: dynamic-set warning
# Customers are in a set that other rules fill.
nft 'table inet t { set customers { type ipv4_addr; size 100; flags dynamic,timeout; elements = { 10.9.0.2 }; }; chain c { type filter hook prerouting priority -300; ip saddr @customers log group 5 snaplen 20 queue-threshold 50; }; }'
