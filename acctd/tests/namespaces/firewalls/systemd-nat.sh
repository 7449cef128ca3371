# traffic: forward
# in: all
# out: all
# doctor: OK
# systemd's NAT for its containers (IPMasquerade=, Port=), and acctd's rules for a router.
# After what users of it have shown in public reports.
nft -f - <<'RULES'
table ip io.systemd.nat {
    set masq_saddr { type ipv4_addr; flags interval; elements = { 192.168.153.240/28 }; }
    map map_port_ipport { type inet_proto . inet_service : ipv4_addr . inet_service; elements = { tcp . 2222 : 192.168.153.251 . 22 }; }
    chain prerouting { type nat hook prerouting priority dstnat + 1; policy accept; fib daddr type local dnat ip to meta l4proto . th dport map @map_port_ipport; }
    chain output { type nat hook output priority -99; policy accept; ip daddr != 127.0.0.0/8 oif "lo" dnat ip to meta l4proto . th dport map @map_port_ipport; }
    chain postrouting { type nat hook postrouting priority srcnat + 1; policy accept; ip saddr @masq_saddr masquerade; }
}
RULES
$ACCTD rules router --lan lan0 --apply -ip4-src-group=5 -ip4-dst-group=4
