# flags: -ip4-src-group=5
# in: part
# doctor: limited error
# says: statistic
# One packet in ten is logged, by iptables.
iptables -A INPUT -m statistic --mode nth --every 10 --packet 0 -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
