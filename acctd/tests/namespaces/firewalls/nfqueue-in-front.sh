# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: NFQUEUE
# What goes to a queue is not logged behind it.
iptables -A INPUT -p tcp -j NFQUEUE --queue-num 3
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
