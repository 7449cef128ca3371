# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: recent
# Who comes too often is dropped.
iptables -A INPUT -p icmp -m recent --name PING --set
iptables -A INPUT -p icmp -m recent --name PING --update --seconds 60 --hitcount 4 -j DROP
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
