# flags: -ip4-src-group=5
# in: none
# live: yes
# doctor: dormant-table error
# The table is switched off.
nft 'table inet t { flags dormant; chain c { type filter hook input priority 0; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
