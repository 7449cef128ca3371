# traffic: forward
# in: all
# out: all
# doctor: OK
# A box that does NAT and nothing else.
nft 'table ip nat { chain post { type nat hook postrouting priority 100; oifname "wan0" ip saddr 10.0.0.0/8 masquerade; }; chain pre { type nat hook prerouting priority -100; iifname "wan0" tcp dport 2222 dnat to 10.1.0.2:22; }; }'
$ACCTD rules router --lan lan0 --apply -ip4-src-group=5 -ip4-dst-group=4
