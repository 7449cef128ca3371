# flags: -ip4-src-group=5
# in: all
# live: yes
# doctor: OK
# Proxmox VE's firewall on a node, and acctd's rules.
iptables-restore $RULES/proxmox.iptables
$ACCTD rules --apply -ip4-src-group=5
