# flags: -ip4-src-group=5
# in: none
# live: yes
# doctor: never-reached error
# A rule at the end of INPUT, where no packet comes past Shorewall's reject.
iptables-restore $RULES/shorewall.iptables
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
