# flags: -ip4-src-group=5
# in: none
# doctor: never-reached error
# A rule at the end of INPUT, where no packet comes past Shorewall's reject.
iptables-restore <<RULES
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT DROP [0:0]
:Broadcast - [0:0]
:fw-net - [0:0]
:lan0_in - [0:0]
:lan0_out - [0:0]
:logdrop - [0:0]
:net-fw - [0:0]
:reject - [0:0]
:sfilter - [0:0]
:tcpflags - [0:0]
-A INPUT -i lan0 -j lan0_in
-A INPUT -i lo -j ACCEPT
-A INPUT -m addrtype --dst-type ANYCAST -j DROP
-A INPUT -j LOG --log-prefix "INPUT REJECT " --log-level 6
-A INPUT -g reject
-A FORWARD -g reject
-A OUTPUT -o lan0 -j lan0_out
-A OUTPUT -o lo -j ACCEPT
-A OUTPUT -g reject
-A fw-net -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A fw-net -j ACCEPT
-A lan0_in -m conntrack --ctstate INVALID,NEW,UNTRACKED -j sfilter
-A lan0_in -p tcp -j tcpflags
-A lan0_in -j net-fw
-A lan0_out -j fw-net
-A net-fw -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A net-fw -p tcp -m multiport --dports 22,80,443 -j ACCEPT
-A net-fw -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A net-fw -m addrtype --dst-type BROADCAST -j DROP
-A net-fw -j LOG --log-prefix "net-fw DROP " --log-level 6
-A net-fw -j DROP
-A reject -m addrtype --src-type BROADCAST -j DROP
-A reject -p tcp -j REJECT --reject-with tcp-reset
-A reject -j REJECT --reject-with icmp-host-prohibited
-A tcpflags -p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG FIN,PSH,URG -g logdrop
-A tcpflags -p tcp -m tcp --tcp-flags SYN,RST SYN,RST -g logdrop
-A logdrop -j DROP
COMMIT
RULES

iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
