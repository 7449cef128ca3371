# flags: -ip4-src-group=5
# in: all
# doctor: OK
# The older iptables has the rule.
iptables-legacy -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
