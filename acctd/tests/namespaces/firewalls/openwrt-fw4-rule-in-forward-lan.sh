# traffic: forward
# flags: -ip4-src-group=5
# in: part
# live: yes
# doctor: behind-verdict warning
# says: established
# A rule put into a chain of OpenWrt's fw4 by /etc/nftables.d: established connections do not come there.
nft -f $RULES/openwrt-fw4.nft
nft insert rule inet fw4 forward_lan meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50
