# in: all
# out: all
# live: yes
# doctor: OK
# Proxmox VE's firewall of nftables on a node, and acctd's rules.
nft -f $RULES/proxmox.nft
$ACCTD rules --apply -ip4-src-group=5 -ip4-dst-group=4
