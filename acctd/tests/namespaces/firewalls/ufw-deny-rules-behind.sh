# in: part
# out: part
# live: yes
# doctor: behind-verdict warning
# Rules of an operator at the end of INPUT and OUTPUT.
iptables-restore $RULES/ufw.iptables
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
iptables -A OUTPUT -j NFLOG --nflog-group 4 --nflog-size 20 --nflog-threshold 50
