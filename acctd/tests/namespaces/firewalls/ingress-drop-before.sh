# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: ingress
# A drop on the interface's ingress.
nft 'table netdev f { chain in { type filter hook ingress device "lan0" priority 0; ip saddr 10.1.0.0/29 drop; }; }'
$ACCTD rules --apply -ip4-src-group=5
