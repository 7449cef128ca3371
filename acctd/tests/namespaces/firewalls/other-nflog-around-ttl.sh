# flags: -ip4-src-group=5
# in: more
# doctor: logged-twice error
# Logged before and after the TTL is changed.
iptables -t mangle -A PREROUTING -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
iptables -t mangle -A PREROUTING -j TTL --ttl-set 64
iptables -t mangle -A PREROUTING -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
