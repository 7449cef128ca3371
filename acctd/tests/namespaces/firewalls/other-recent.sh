# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# wrong: what a limit drops is a note, as only --live sees whether it drops any
# says: recent
# Who comes too often is dropped.
iptables -A INPUT -p icmp -m recent --name PING --set
iptables -A INPUT -p icmp -m recent --name PING --update --seconds 60 --hitcount 4 -j DROP
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
