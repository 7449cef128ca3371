# traffic: forward
# flags: -ip4-src-group=5
# in: part
# live: yes
# doctor: forwarded-not-counted warning
# Forwarding is on because of Docker, which has no containers yet; the rule is one on INPUT.
iptables -P FORWARD DROP
iptables -N DOCKER-USER
iptables -A FORWARD -j DOCKER-USER
iptables -A DOCKER-USER -j RETURN
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
