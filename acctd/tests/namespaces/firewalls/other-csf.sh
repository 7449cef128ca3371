# flags: -ip4-src-group=5
# in: none
# doctor: never-reached error
# says: LOGDROPIN
# CSF drops all that it does not know; the rule was added behind it.
iptables -w -N LOCALINPUT; iptables -w -N INVALID; iptables -w -N INVDROP; iptables -w -N LOGDROPIN; iptables -w -N DENYIN; iptables -w -N ALLOWIN
iptables -w -A INVDROP -j DROP
iptables -w -A INVALID -m conntrack --ctstate INVALID -j INVDROP
iptables -w -A INVALID -p tcp -m tcp --tcp-flags FIN,SYN FIN,SYN -j INVDROP
iptables -w -A DENYIN -s 10.1.0.5 ! -i lo -j DROP
iptables -w -A LOCALINPUT ! -i lo -j ALLOWIN
iptables -w -A LOCALINPUT ! -i lo -j DENYIN
iptables -w -A LOGDROPIN -p tcp --dport 23 -j DROP
iptables -w -A LOGDROPIN -p tcp -m limit --limit 30/min -j LOG --log-prefix 'Firewall: *TCP_IN Blocked* '
iptables -w -A LOGDROPIN -j DROP
iptables -w -A INPUT ! -i lo -j LOCALINPUT
iptables -w -A INPUT -i lo -j ACCEPT
iptables -w -A INPUT ! -i lo -p tcp -j INVALID
iptables -w -A INPUT ! -i lo -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -w -A INPUT ! -i lo -p tcp -m conntrack --ctstate NEW -m tcp --dport 22 -j ACCEPT
iptables -w -A INPUT ! -i lo -p icmp --icmp-type 8 -m limit --limit 100/sec -j ACCEPT
iptables -w -A INPUT ! -i lo -j LOGDROPIN
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
