# flags: -ip4-src-group=5
# in: all
# live: yes
# doctor: OK
# fail2ban's chain with one address banned, and acctd's rules.
iptables -N f2b-sshd
iptables -A f2b-sshd -j RETURN
iptables -I INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
iptables -I f2b-sshd 1 -s 10.1.0.3 -j REJECT --reject-with icmp-port-unreachable
$ACCTD rules --apply -ip4-src-group=5
