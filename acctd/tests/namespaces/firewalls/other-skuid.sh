# flags: -ip4-dst-group=4
# out: part
# doctor: some-packets warning
# says: skuid
# The same by nft.
nft 'table inet t { chain o { type filter hook output priority 0; meta nfproto ipv4 meta skuid 0 log group 4 snaplen 20 queue-threshold 50; }; }'
