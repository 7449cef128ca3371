# flags: -ip4-src-group=5
# in: all
# doctor: OK
# Tailscale's chains, and acctd's rules of iptables.
# After what users of it have shown in public reports.
iptables-restore $RULES/tailscale.iptables
$ACCTD rules --format iptables --apply -ip4-src-group=5
