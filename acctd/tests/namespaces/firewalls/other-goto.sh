# flags: -ip4-src-group=5
# in: none
# doctor: never-reached error
# says: goto
# A goto does not come back.
nft 'table inet t { chain hosts { tcp dport 22 counter; }; chain c { type filter hook input priority 0; meta nfproto ipv4 goto hosts; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
