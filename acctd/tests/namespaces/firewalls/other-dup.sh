# flags: -ip4-src-group=5
# in: all
# doctor: OK
# An analyser gets a copy of each packet.
nft 'table netdev tap { chain i { type filter hook ingress device "lan0" priority 0; dup to "wan0"; }; }'
$ACCTD rules --apply -ip4-src-group=5
