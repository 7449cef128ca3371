# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: established
# An accept of what is established behind two drops of little.
nft 'table inet t { chain c { type filter hook input priority 0; ip saddr 10.1.0.7 drop; tcp dport 25 drop; ct state established,related accept; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
