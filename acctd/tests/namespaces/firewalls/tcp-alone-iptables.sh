# flags: -ip4-src-group=5
# in: part
# doctor: some-protocols warning
# A rule for TCP alone, by iptables.
iptables -A INPUT -p tcp -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
