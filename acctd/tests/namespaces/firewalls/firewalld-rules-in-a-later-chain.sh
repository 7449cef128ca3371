# flags: -ip4-src-group=5
# in: part
# live: yes
# doctor: behind-verdict warning
# says: filter_INPUT
# A log rule in a chain behind that of firewalld: what is rejected does not come so far.
nft -f $RULES/firewalld.nft
nft 'table inet mine { chain in { type filter hook input priority 20; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
