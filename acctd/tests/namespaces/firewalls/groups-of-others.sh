# flags: -ip4-src-group=5
# in: all
# doctor: OK
# Other programs have rules for their groups, which none reads now.
iptables -A INPUT -p tcp --dport 22 -j NFLOG --nflog-group 100 --nflog-prefix ssh
nft 'table inet o { chain c { type filter hook input priority 10; tcp dport 80 log prefix "http" group 1; }; }'
$ACCTD rules --apply -ip4-src-group=5
