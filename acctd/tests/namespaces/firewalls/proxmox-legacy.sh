# flags: -ip4-src-group=5
# in: all
# live: yes
# doctor: OK
# Proxmox VE takes iptables-legacy, and acctd's rules are nft's.
iptables-legacy-restore $RULES/proxmox.iptables
$ACCTD rules --apply -ip4-src-group=5
