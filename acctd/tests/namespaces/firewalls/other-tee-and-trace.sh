# flags: -ip4-src-group=5
# in: all
# doctor: OK
# Targets that let packets go on.
iptables -t mangle -A PREROUTING -i lan0 -j TEE --gateway 10.254.0.2
iptables -t raw -A PREROUTING -p icmp -j CT --notrack
iptables -t mangle -A PREROUTING -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400
iptables -t mangle -A PREROUTING -j DSCP --set-dscp 8
iptables -A INPUT -p tcp -j LOG --log-prefix "in " -m limit --limit 1/min
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
