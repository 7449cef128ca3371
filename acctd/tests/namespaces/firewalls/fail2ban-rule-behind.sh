# flags: -ip4-src-group=5
# in: part
# live: yes
# doctor: behind-verdict warning
# says: REJECT
# A rule behind fail2ban's chain: those banned do not come to it.
iptables -N f2b-sshd
iptables -A f2b-sshd -j RETURN
iptables -I INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
iptables -I f2b-sshd 1 -s 10.1.0.3 -j REJECT --reject-with icmp-port-unreachable
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
