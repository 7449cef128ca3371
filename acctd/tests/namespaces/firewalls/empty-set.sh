# flags: -ip4-src-group=5
# in: none
# doctor: empty-set error
# Customers are in a set, which is empty.
nft 'table inet t { set customers { type ipv4_addr; }; chain c { type filter hook prerouting priority -300; ip saddr @customers log group 5 snaplen 20 queue-threshold 50; }; }'
