# flags: -ip4-src-group=5
# in: all
# doctor: OK
# Masquerade on wan0, and what comes from there is not looked at.
sysctl -qw net.ipv4.ip_forward=1
nft 'table ip n { chain p { type nat hook postrouting priority 100; oifname "wan0" masquerade; }; }'
nft 'table inet t { chain c { type filter hook prerouting priority -300; iifname "lan0" meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
