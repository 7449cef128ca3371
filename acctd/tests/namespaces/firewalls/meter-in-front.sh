# flags: -ip4-src-group=5
# in: all
# doctor: OK
# A meter, as nft's older syntax has it.
nft 'table inet t { chain c { type filter hook input priority 0; tcp dport 22 meter m { ip saddr limit rate over 1000/second burst 1000 packets } drop; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
