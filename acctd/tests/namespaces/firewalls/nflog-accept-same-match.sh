# flags: -ip4-src-group=5
# in: all
# doctor: OK
# NFLOG and ACCEPT with one match, and NFLOG for the rest.
iptables -A INPUT -p udp -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
iptables -A INPUT -p udp -j ACCEPT
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
