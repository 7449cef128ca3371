# flags: -ip4-src-group=5
# in: all
# doctor: OK
# kube-proxy in iptables mode: 10,000 rules of services, generated.
sysctl -qw net.ipv4.ip_forward=1
{
    echo "*nat"
    for chain in PREROUTING INPUT OUTPUT POSTROUTING; do echo ":$chain ACCEPT [0:0]"; done
    for chain in KUBE-SERVICES KUBE-NODEPORTS KUBE-POSTROUTING KUBE-MARK-MASQ; do echo ":$chain - [0:0]"; done
    seq 2000 | sed "s/.*/:KUBE-SVC-&A - [0:0]\n:KUBE-SEP-&A - [0:0]/"
    echo "-A PREROUTING -m comment --comment \"service portals\" -j KUBE-SERVICES"
    echo "-A OUTPUT -m comment --comment \"service portals\" -j KUBE-SERVICES"
    echo "-A POSTROUTING -m comment --comment \"postrouting rules\" -j KUBE-POSTROUTING"
    echo "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000"
    echo "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN"
    echo "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0"
    echo "-A KUBE-POSTROUTING -m comment --comment \"SNAT of service traffic\" -j MASQUERADE --random-fully"
    seq 2000 | awk "{ a=\"10.96.\" int(\$1/250) \".\" (\$1%250+1); b=\"10.244.\" int(\$1/250) \".\" (\$1%250+1)
        print \"-A KUBE-SERVICES -d \" a \"/32 -p tcp -m comment --comment \\\"ns/svc\" \$1 \" cluster IP\\\" -m tcp --dport 80 -j KUBE-SVC-\" \$1 \"A\"
        print \"-A KUBE-SVC-\" \$1 \"A ! -s 10.244.0.0/16 -d \" a \"/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ\"
        print \"-A KUBE-SVC-\" \$1 \"A -m comment --comment \\\"ns/svc\" \$1 \"\\\" -j KUBE-SEP-\" \$1 \"A\"
        print \"-A KUBE-SEP-\" \$1 \"A -s \" b \"/32 -j KUBE-MARK-MASQ\"
        print \"-A KUBE-SEP-\" \$1 \"A -p tcp -m tcp -j DNAT --to-destination \" b \":8080\" }"
    echo "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    echo COMMIT
    cat <<RULES
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
RULES
} > $SCRATCH/rules
iptables-restore $SCRATCH/rules
$ACCTD rules router --lan lan0 --apply -ip4-src-group=5
