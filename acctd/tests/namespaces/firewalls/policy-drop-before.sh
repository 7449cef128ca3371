# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: policy drop
# An earlier chain has the policy drop.
nft 'table inet f { chain in { type filter hook input priority -10; policy drop; icmp type echo-request accept; }; }'
nft 'table inet t { chain c { type filter hook input priority 0; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
