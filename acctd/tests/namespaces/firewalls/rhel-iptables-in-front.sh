# flags: -ip4-src-group=5
# in: all
# live: yes
# doctor: OK
# What RHEL's iptables-services load, and a rule in front.
iptables-restore $RULES/rhel.iptables
iptables -I INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
