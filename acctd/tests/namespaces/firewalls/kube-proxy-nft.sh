# flags: -ip4-src-group=5
# in: all
# live: yes
# doctor: OK
# kube-proxy in nft mode: maps of verdicts, and numgen between endpoints.
# As kube-proxy prints it (kubernetes/kubernetes: pkg/proxy/nftables/proxier_test.go, TestOverallNFTablesRules).
sysctl -qw net.ipv4.ip_forward=1
nft -f - <<'RULES'
table ip kube-proxy {
    comment "rules for kube-proxy"
    set cluster-ips { type ipv4_addr; comment "Active ClusterIPs"; elements = { 10.96.0.41, 10.96.0.44, 10.96.0.45, 10.96.0.46 }; }
    set nodeport-ips { type ipv4_addr; comment "IPs that accept NodePort traffic"; elements = { 10.9.0.1 }; }
    set affinity-3CCCCCCC-shop/pay/tcp/http__10.244.0.3/8080 { type ipv4_addr; flags dynamic,timeout; timeout 10800s; }
    map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; comment "destinations that are subject to LoadBalancerSourceRanges"; elements = { 198.51.100.2 . tcp . 80 : goto firewall-2CCCCCCC-shop/pay/tcp/http }; }
    map no-endpoint-nodeports { type inet_proto . inet_service : verdict; comment "vmap to drop or reject packets to service nodeports with no endpoints"; elements = { tcp . 3001 : drop }; }
    map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; comment "vmap to drop or reject packets to services with no endpoints"; elements = { 10.96.0.46 . tcp . 80 : goto reject-chain, 198.51.100.1 . tcp . 80 : drop }; }
    map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"; elements = { 10.96.0.41 . tcp . 80 : goto service-2AAAAAAA-shop/web/tcp/http, 10.96.0.44 . tcp . 80 : goto service-2BBBBBBB-shop/api/tcp/http, 198.51.100.3 . tcp . 80 : goto external-2BBBBBBB-shop/api/tcp/http, 10.96.0.45 . tcp . 80 : goto service-2CCCCCCC-shop/pay/tcp/http, 198.51.100.2 . tcp . 80 : goto external-2CCCCCCC-shop/pay/tcp/http }; }
    map service-nodeports { type inet_proto . inet_service : verdict; comment "NodePort traffic"; elements = { tcp . 3002 : goto external-2CCCCCCC-shop/pay/tcp/http }; }
    chain cluster-ips-check { ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"; ip daddr { 10.96.0.0/16 } drop comment "Drop traffic to unallocated ClusterIPs"; }
    chain filter-prerouting-pre-dnat { type filter hook prerouting priority -110; ct state new jump firewall-check; }
    chain filter-output-pre-dnat { type filter hook output priority -110; ct state new jump firewall-check; }
    chain filter-forward { type filter hook forward priority 0; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }
    chain filter-input { type filter hook input priority 0; ct state new jump nodeport-endpoints-check; ct state new jump service-endpoints-check; }
    chain filter-output { type filter hook output priority 0; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }
    chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
    chain mark-for-masquerade { mark set mark or 0x4000; }
    chain masquerading { mark and 0x4000 == 0 return; mark set mark xor 0x4000; masquerade fully-random; }
    chain nat-output { type nat hook output priority -100; jump services; }
    chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
    chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
    chain nodeport-endpoints-check { ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
    chain reject-chain { comment "helper for @no-endpoint-services / @no-endpoint-nodeports"; reject; }
    chain services { ip daddr . meta l4proto . th dport vmap @service-ips; ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports; }
    chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
    chain service-2AAAAAAA-shop/web/tcp/http { ip daddr 10.96.0.41 ip saddr != 10.0.0.0/8 jump mark-for-masquerade; numgen random mod 1 vmap { 0 : goto endpoint-3AAAAAAA-shop/web/tcp/http__10.244.0.1/8080 }; }
    chain endpoint-3AAAAAAA-shop/web/tcp/http__10.244.0.1/8080 { ip saddr 10.244.0.1 jump mark-for-masquerade; meta l4proto tcp dnat to 10.244.0.1:8080; }
    chain service-2BBBBBBB-shop/api/tcp/http { ip daddr 10.96.0.44 ip saddr != 10.0.0.0/8 jump mark-for-masquerade; numgen random mod 2 vmap { 0 : goto endpoint-4BBBBBBB-shop/api/tcp/http__10.244.0.4/8080, 1 : goto endpoint-3BBBBBBB-shop/api/tcp/http__10.244.0.5/8080 }; }
    chain external-2BBBBBBB-shop/api/tcp/http { jump mark-for-masquerade; goto service-2BBBBBBB-shop/api/tcp/http; }
    chain endpoint-3BBBBBBB-shop/api/tcp/http__10.244.0.5/8080 { ip saddr 10.244.0.5 jump mark-for-masquerade; meta l4proto tcp dnat to 10.244.0.5:8080; }
    chain endpoint-4BBBBBBB-shop/api/tcp/http__10.244.0.4/8080 { ip saddr 10.244.0.4 jump mark-for-masquerade; meta l4proto tcp dnat to 10.244.0.4:8080; }
    chain service-2CCCCCCC-shop/pay/tcp/http { ip daddr 10.96.0.45 ip saddr != 10.0.0.0/8 jump mark-for-masquerade; ip saddr @affinity-3CCCCCCC-shop/pay/tcp/http__10.244.0.3/8080 goto endpoint-3CCCCCCC-shop/pay/tcp/http__10.244.0.3/8080; numgen random mod 1 vmap { 0 : goto endpoint-3CCCCCCC-shop/pay/tcp/http__10.244.0.3/8080 }; }
    chain external-2CCCCCCC-shop/pay/tcp/http { jump mark-for-masquerade; goto service-2CCCCCCC-shop/pay/tcp/http; }
    chain endpoint-3CCCCCCC-shop/pay/tcp/http__10.244.0.3/8080 { ip saddr 10.244.0.3 jump mark-for-masquerade; update @affinity-3CCCCCCC-shop/pay/tcp/http__10.244.0.3/8080 { ip saddr }; meta l4proto tcp dnat to 10.244.0.3:8080; }
    chain firewall-2CCCCCCC-shop/pay/tcp/http { ip saddr != { 203.0.113.0/25 } drop; }
}
RULES
$ACCTD rules router --lan lan0 --apply -ip4-src-group=5
