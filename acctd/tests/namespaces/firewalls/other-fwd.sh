# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: fwd
# Some frames go straight to another interface.
nft 'table netdev fast { chain i { type filter hook ingress device "lan0" priority 0; ip saddr 10.1.0.0/29 fwd to "wan0"; }; }'
$ACCTD rules --apply -ip4-src-group=5
