# flags: -ip4-src-group=5
# in: part
# live: yes
# doctor: behind-verdict warning
# says: cluster-in
# A rule behind Proxmox VE's firewall of nftables: all goes that it does not accept.
nft -f $RULES/proxmox.nft
nft 'table inet mine { chain in { type filter hook input priority 10; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
