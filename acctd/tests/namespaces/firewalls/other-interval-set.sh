# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: bogons
# A list of networks is dropped in an earlier chain.
nft 'table inet t { set bogons { type ipv4_addr; flags interval; auto-merge; elements = { 0.0.0.0/8, 172.16.0.0/12, 10.1.0.8/29 }; }
    chain early { type filter hook prerouting priority -310; ip saddr @bogons counter drop; }
    chain in { type filter hook input priority 0; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
