# traffic: forward
# flags: -ip4-src-group=5
# in: part
# doctor: not address-after-nat
# What is masqueraded goes out by another interface than what is logged.
nft 'table ip n { chain p { type nat hook postrouting priority 100; oifname "lan0" masquerade; }; }'
nft 'table inet t { chain c { type filter hook postrouting priority 200; oifname "wan0" meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
