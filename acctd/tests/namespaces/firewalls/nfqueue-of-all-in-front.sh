# flags: -ip4-src-group=5
# in: none
# doctor: never-reached error
# says: NFQUEUE
# All goes to a queue.
iptables -A INPUT -j NFQUEUE --queue-num 3 --queue-bypass
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
