# flags: -ip4-src-group=5
# in: all
# doctor: OK
# kube-proxy in nft mode: maps of verdicts, and numgen between endpoints.
sysctl -qw net.ipv4.ip_forward=1
nft -f - <<RULES
table ip kube-proxy {
    set cluster-ips { type ipv4_addr; elements = { 10.96.0.1, 10.96.0.10 }; }
    set nodeport-ips { type ipv4_addr; elements = { 10.9.0.1 }; }
    map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
    map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.96.0.9 . tcp . 80 : goto reject-chain }; }
    map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
    map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.96.0.10 . udp . 53 : goto service-dns }; }
    map service-nodeports { type inet_proto . inet_service : verdict; }
    chain reject-chain { reject; }
    chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
    chain masquerading { meta mark and 0x4000 == 0 return; meta mark set meta mark xor 0x4000; masquerade fully-random; }
    chain service-dns { ip daddr 10.96.0.10 udp dport 53 ip saddr != 10.244.0.0/16 jump mark-for-masquerade; numgen random mod 2 vmap { 0 : goto endpoint-a, 1 : goto endpoint-b }; }
    chain endpoint-a { ip saddr 10.244.0.2 jump mark-for-masquerade; meta l4proto udp dnat to 10.244.0.2:53; }
    chain endpoint-b { ip saddr 10.244.0.3 jump mark-for-masquerade; meta l4proto udp dnat to 10.244.0.3:53; }
    chain services { ip daddr . meta l4proto . th dport vmap @service-ips; ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports; }
    chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
    chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
    chain cluster-ips-check { ip daddr @cluster-ips reject; ip daddr 10.96.0.0/12 drop; }
    chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
    chain nat-output { type nat hook output priority -100; jump services; }
    chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
    chain filter-prerouting-pre-dnat { type filter hook prerouting priority -110; ct state new jump firewall-check; }
    chain filter-output-pre-dnat { type filter hook output priority -110; ct state new jump firewall-check; }
    chain filter-input { type filter hook input priority -110; ct state new jump service-endpoints-check; }
    chain filter-forward { type filter hook forward priority -110; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }
    chain filter-output { type filter hook output priority 0; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }
}
RULES
$ACCTD rules router --lan lan0 --apply -ip4-src-group=5
