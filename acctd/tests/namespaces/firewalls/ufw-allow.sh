# in: all
# out: all
# live: yes
# doctor: OK
# ufw, allow by default, with rules of iptables by acctd.
sed 's/^:INPUT DROP/:INPUT ACCEPT/' $RULES/ufw.iptables | iptables-restore
$ACCTD rules --apply --format iptables -ip4-src-group=5 -ip4-dst-group=4
