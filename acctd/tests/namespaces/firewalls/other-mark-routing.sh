# flags: -ip4-src-group=5
# in: all
# doctor: OK
# Marks for policy routing, in nft and iptables.
iptables -t mangle -A PREROUTING -i lan0 -p tcp --dport 8080 -j MARK --set-mark 2
iptables -t mangle -A PREROUTING -j CONNMARK --save-mark
nft 'table inet pbr { chain p { type filter hook prerouting priority -150; ct mark != 0 meta mark set ct mark; ip saddr 10.1.0.0/24 meta mark set 0x1 ct mark set meta mark; }; }'
ip rule add fwmark 2 lookup main
$ACCTD rules --apply -ip4-src-group=5
