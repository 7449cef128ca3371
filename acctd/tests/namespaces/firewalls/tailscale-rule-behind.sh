# flags: -ip4-src-group=5
# in: all
# doctor: behind-verdict warning
# says: tailscale0
# A rule at the end of INPUT: what comes by the tunnel (nothing now) does not come there.
# After what users of it have shown in public reports.
iptables-restore $RULES/tailscale.iptables
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
