# flags: -ip4-src-group=5
# in: none
# live: yes
# doctor: never-reached error
# says: REJECT
# What RHEL's iptables-services load, and a rule added at the end.
iptables-restore $RULES/rhel.iptables
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
