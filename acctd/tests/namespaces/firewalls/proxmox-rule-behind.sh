# flags: -ip4-src-group=5
# in: part
# live: yes
# doctor: behind-verdict warning
# A rule at the end of INPUT behind those of Proxmox VE.
iptables-restore $RULES/proxmox.iptables
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
