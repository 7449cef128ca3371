# flags: -ip4-src-group=5
# in: all
# live: yes
# doctor: OK
# Shorewall with one zone, and acctd's rules of iptables.
iptables-restore $RULES/shorewall.iptables
$ACCTD rules --format iptables --apply -ip4-src-group=5
