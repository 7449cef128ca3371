# flags: -ip4-src-group=5
# in: all
# live: yes
# doctor: OK
# kube-proxy in iptables mode: 22,000 rules of services.
# As kube-proxy prints it, 2,000 times its service (kubernetes/kubernetes: pkg/proxy/iptables/proxier_test.go,
# TestOverallIPTablesRules; iptables.go of kubelet has KUBE-FIREWALL, the canaries and the hint).
sysctl -qw net.ipv4.ip_forward=1
{
    cat <<RULES
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SERVICES - [0:0]
RULES
    seq 2000 | sed "s/.*/:KUBE-SVC-&A - [0:0]\n:KUBE-EXT-&A - [0:0]\n:KUBE-SEP-&A - [0:0]\n:KUBE-SEP-&B - [0:0]/"
    cat <<RULES
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
RULES
    seq 2000 | awk '{ n = $1; a = "10.96." int(n/250) "." (n%250+1); b = "10.244." int(n/250) "." (n%250+1); c = "10.245." int(n/250) "." (n%250+1); m = "-m comment --comment "
        print "-A KUBE-SERVICES -d " a "/32 -p tcp " m "\"ns/svc" n ":http cluster IP\" -m tcp --dport 80 -j KUBE-SVC-" n "A"
        print "-A KUBE-NODEPORTS -p tcp " m "\"ns/svc" n ":http\" -m tcp --dport " 20000+n " -j KUBE-EXT-" n "A"
        print "-A KUBE-EXT-" n "A " m "\"masquerade traffic for ns/svc" n ":http external destinations\" -j KUBE-MARK-MASQ"
        print "-A KUBE-EXT-" n "A -j KUBE-SVC-" n "A"
        print "-A KUBE-SVC-" n "A ! -s 10.0.0.0/8 -d " a "/32 -p tcp " m "\"ns/svc" n ":http cluster IP\" -m tcp --dport 80 -j KUBE-MARK-MASQ"
        print "-A KUBE-SVC-" n "A " m "\"ns/svc" n ":http -> " b ":80\" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-" n "A"
        print "-A KUBE-SVC-" n "A " m "\"ns/svc" n ":http -> " c ":80\" -j KUBE-SEP-" n "B"
        print "-A KUBE-SEP-" n "A -s " b "/32 " m "\"ns/svc" n ":http\" -j KUBE-MARK-MASQ"
        print "-A KUBE-SEP-" n "A -p tcp " m "\"ns/svc" n ":http\" -m tcp -j DNAT --to-destination " b ":80"
        print "-A KUBE-SEP-" n "B -s " c "/32 " m "\"ns/svc" n ":http\" -j KUBE-MARK-MASQ"
        print "-A KUBE-SEP-" n "B -p tcp " m "\"ns/svc" n ":http\" -m tcp -j DNAT --to-destination " c ":80" }'
    cat <<RULES
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-EXTERNAL-SERVICES -p tcp -m comment --comment "shop/mail:smtp has no local endpoints" -m addrtype --dst-type LOCAL -m tcp --dport 3001 -j DROP
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-NODEPORTS -p tcp -m comment --comment "shop/mail:smtp health check node port" -m tcp --dport 30000 -j ACCEPT
-A KUBE-PROXY-FIREWALL -d 198.51.100.2/32 -p tcp -m comment --comment "shop/pay:http traffic not accepted by KUBE-FW-CCCCCCCCCCCCCCCC" -m tcp --dport 80 -j DROP
-A KUBE-SERVICES -d 10.96.0.46/32 -p tcp -m comment --comment "shop/old:http has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
COMMIT
RULES
} > $SCRATCH/rules
iptables-restore $SCRATCH/rules
$ACCTD rules router --lan lan0 --apply -ip4-src-group=5
