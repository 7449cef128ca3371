# flags: -ip4-src-group=5
# in: none
# doctor: never-reached error
# says: REJECT
# REJECT of iptables-nft is no expression that nft shows.
iptables -A INPUT -j REJECT
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
