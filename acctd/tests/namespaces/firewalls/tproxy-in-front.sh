# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: TPROXY
# A transparent proxy takes TCP.
iptables -t mangle -A PREROUTING -p tcp --dport 8080 -j TPROXY --on-port 3128 --tproxy-mark 0x1/0x1
iptables -t mangle -A PREROUTING -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
