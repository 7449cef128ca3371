# in: all
# out: all
# live: yes
# doctor: OK
# ufw, deny by default, with acctd's rules before it.
iptables-restore $RULES/ufw.iptables
$ACCTD rules --apply -ip4-src-group=5 -ip4-dst-group=4
