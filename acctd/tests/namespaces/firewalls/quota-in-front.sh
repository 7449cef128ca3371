# flags: -ip4-src-group=5
# in: all
# doctor: OK
# A quota that is not used up.
nft 'table inet t { chain c { type filter hook input priority 0; quota over 100 mbytes drop; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
