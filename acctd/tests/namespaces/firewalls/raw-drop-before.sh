# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: 8080
# A drop in iptables' table raw.
iptables -t raw -A PREROUTING -p tcp --dport 8080 -j DROP
$ACCTD rules --apply -ip4-src-group=5
