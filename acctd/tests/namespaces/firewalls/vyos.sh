# traffic: forward
# in: all
# out: all-and-dropped
# doctor: OK
# VyOS: its chains by hook, zones not used, and acctd's rules.
nft -f - <<'RULES'
table ip vyos_filter {
    set A_blocked { type ipv4_addr; flags interval; auto-merge; elements = { 192.0.2.0/24, 198.51.100.7 }; }
    chain VYOS_STATE_POLICY { ct state established counter accept; ct state related counter accept; ct state invalid counter drop; return; }
    chain VYOS_FORWARD_filter { type filter hook forward priority 0; policy accept; jump VYOS_STATE_POLICY; iifname "lan0" counter jump NAME_LAN-OUT; counter drop comment "FWD-filter default-action drop"; }
    chain VYOS_INPUT_filter { type filter hook input priority 0; policy accept; jump VYOS_STATE_POLICY; ip saddr @A_blocked counter drop comment "ipv4-INP-filter-10"; tcp dport 22 ct state new add @RECENT_INP_filter_20 { ip saddr limit rate over 4/minute burst 4 packets } counter drop comment "ipv4-INP-filter-20"; counter accept comment "INP-filter default-action accept"; }
    set RECENT_INP_filter_20 { type ipv4_addr; size 65535; flags dynamic; }
    chain VYOS_OUTPUT_filter { type filter hook output priority 0; policy accept; counter accept; }
    chain NAME_LAN-OUT { counter accept comment "ipv4-NAM-LAN-OUT-10"; counter drop; }
    chain VYOS_FRAG_MARK { type filter hook prerouting priority -450; policy accept; ip frag-off & 16383 != 0 meta mark set 0x000ffff1 return; }
    chain VYOS_PREROUTING_raw { type filter hook prerouting priority -300; policy accept; counter accept; }
}
table ip raw {
    chain VYOS_TCP_MSS { type filter hook forward priority -300; policy accept; }
    chain vyos_global_rpfilter { return; }
    chain vyos_rpfilter { type filter hook prerouting priority -300; policy accept; counter jump vyos_global_rpfilter; }
    chain NAT_CONNTRACK { counter accept; }
    chain PREROUTING { type filter hook prerouting priority -300; policy accept; counter jump NAT_CONNTRACK; notrack; }
}
table ip vyos_nat {
    chain PREROUTING { type nat hook prerouting priority -100; counter jump VYOS_PRE_DNAT_HOOK; }
    chain POSTROUTING { type nat hook postrouting priority 100; oifname "wan0" counter masquerade comment "SRC-NAT-100"; }
    chain VYOS_PRE_DNAT_HOOK { return; }
}
RULES
$ACCTD rules router --lan lan0 --apply -ip4-src-group=5 -ip4-dst-group=4
