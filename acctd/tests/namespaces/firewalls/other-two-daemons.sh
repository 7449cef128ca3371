# flags: -ip4-src-group=5
# in: all
# doctor: OK
# Another daemon has the same packets by a group of its own.
iptables -A INPUT -j NFLOG --nflog-group 15 --nflog-size 64 --nflog-threshold 20
nft 'table inet ulogd { chain in { type filter hook input priority -200; log group 1 prefix "all "; }; }'
$ACCTD rules --apply -ip4-src-group=5
