# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# APF drops ports one by one; the rule is behind.
iptables -N TALLOW; iptables -N TDENY; iptables -N RESET; iptables -N PROHIBIT
iptables -A RESET -p tcp -j REJECT --reject-with tcp-reset
iptables -A RESET -j DROP
iptables -A PROHIBIT -j REJECT --reject-with icmp-host-prohibited
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -j TALLOW
iptables -A INPUT -j TDENY
for port in 135:139 111 513 520 445 1433 8080; do iptables -A INPUT -i lan0 -p tcp --dport $port -j RESET; iptables -A INPUT -i lan0 -p udp --dport $port -j RESET; done
iptables -A INPUT -i lan0 -p tcp -m tcp --tcp-flags ALL NONE -j PROHIBIT
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
