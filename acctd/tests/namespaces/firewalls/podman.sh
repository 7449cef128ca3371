# traffic: forward
# in: all
# out: all
# doctor: OK
# Podman's netavark with a published port, and acctd's rules for a router.
# After what users of it have shown in public reports.
nft -f - <<'RULES'
table inet netavark {
    chain INPUT { type filter hook input priority filter; policy accept; ip saddr 10.88.0.0/16 meta l4proto { tcp, udp } th dport 53 accept; }
    chain FORWARD { type filter hook forward priority filter; policy accept; ct state invalid drop; jump NETAVARK-ISOLATION-1; ip daddr 10.88.0.0/16 ct state established,related accept; ip saddr 10.88.0.0/16 accept; }
    chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; meta mark & 0x00002000 == 0x00002000 masquerade; ip saddr 10.88.0.0/16 jump nv_2f259bab_10_88_0_0_nm16; }
    chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local jump NETAVARK-HOSTPORT-DNAT; }
    chain OUTPUT { type nat hook output priority -100; policy accept; fib daddr type local jump NETAVARK-HOSTPORT-DNAT; }
    chain NETAVARK-HOSTPORT-DNAT { tcp dport 8443 jump nv_2f259bab_10_88_0_0_nm16_dnat; }
    chain NETAVARK-HOSTPORT-SETMARK { meta mark set meta mark | 0x00002000; }
    chain NETAVARK-ISOLATION-1 { }
    chain NETAVARK-ISOLATION-3 { oifname "podman0" drop; jump NETAVARK-ISOLATION-2; }
    chain NETAVARK-ISOLATION-2 { }
    chain nv_2f259bab_10_88_0_0_nm16 { ip daddr 10.88.0.0/16 accept; ip daddr != 224.0.0.0/4 masquerade; }
    chain nv_2f259bab_10_88_0_0_nm16_dnat { ip saddr 10.88.0.0/16 tcp dport 8443 jump NETAVARK-HOSTPORT-SETMARK; tcp dport 8443 dnat ip to 10.88.0.4:8080; }
}
RULES
$ACCTD rules router --lan lan0 --apply -ip4-src-group=5 -ip4-dst-group=4
