# traffic: forward
# in: all
# out: all-and-dropped
# live: yes
# doctor: OK
# VyOS: its chains by hook, zones not used, and acctd's rules.
# As VyOS 1.5 has it (vyos/vyos-1x: data/vyos-firewall-init.conf, data/templates/firewall/nftables.j2 and nftables-nat.j2,
# data/templates/conntrack/nftables-ct.j2).
nft -f - <<'RULES'
table ip nat { chain VYOS_PRE_SNAT_HOOK { type nat hook postrouting priority 99; policy accept; return; }; }
table inet mangle { chain FORWARD { type filter hook forward priority -150; policy accept; }; }
table ip raw {
    chain VYOS_TCP_MSS { type filter hook forward priority -300; policy accept; }
    chain vyos_global_rpfilter { return; }
    chain vyos_rpfilter { type filter hook prerouting priority -300; policy accept; counter jump vyos_global_rpfilter; }
    chain VYOS_PREROUTING_HOOK { type filter hook prerouting priority -300; policy accept; }
}
table inet vrf_zones {
    map ct_iface_map { typeof iifname : ct zone; }
    chain vrf_zones_ct_in { type filter hook prerouting priority raw; policy accept; }
    chain vrf_zones_ct_out { type filter hook output priority raw; policy accept; }
}
table ip vyos_conntrack {
    chain VYOS_CT_IGNORE { return; }
    chain VYOS_CT_TIMEOUT { return; }
    chain VYOS_CT_HELPER { return; }
    chain FW_CONNTRACK { accept; }
    chain NAT_CONNTRACK { accept; }
    chain WLB_CONNTRACK { return; }
    chain PREROUTING { type filter hook prerouting priority -300; policy accept; counter jump VYOS_CT_IGNORE; counter jump VYOS_CT_TIMEOUT; counter jump FW_CONNTRACK; counter jump NAT_CONNTRACK; counter jump WLB_CONNTRACK; notrack; }
    chain PREROUTING_HELPER { type filter hook prerouting priority -5; policy accept; counter jump VYOS_CT_HELPER; }
    chain OUTPUT { type filter hook output priority -300; policy accept; counter jump VYOS_CT_IGNORE; counter jump VYOS_CT_TIMEOUT; counter jump FW_CONNTRACK; counter jump NAT_CONNTRACK; notrack; }
    chain OUTPUT_HELPER { type filter hook output priority -5; policy accept; counter jump VYOS_CT_HELPER; }
}
table ip vyos_filter {
    set A_blocked { type ipv4_addr; flags interval; auto-merge; elements = { 192.0.2.0/24, 198.51.100.7 }; }
    set RECENT_INP_filter_20 { type ipv4_addr; size 65535; flags dynamic; }
    chain VYOS_STATE_POLICY { ct state established counter accept; ct state invalid counter drop; ct state related counter accept; return; }
    chain VYOS_FORWARD_filter { type filter hook forward priority filter; policy accept; jump VYOS_STATE_POLICY; iifname "lan0" counter jump NAME_LAN-OUT comment "ipv4-FWD-filter-10"; counter drop comment "FWD-filter default-action drop"; }
    chain VYOS_INPUT_filter { type filter hook input priority filter; policy accept; jump VYOS_STATE_POLICY; ip saddr @A_blocked counter drop comment "ipv4-INP-filter-10"; tcp dport 22 ct state new add @RECENT_INP_filter_20 { ip saddr limit rate over 4/minute burst 4 packets } counter drop comment "ipv4-INP-filter-20"; counter accept comment "INP-filter default-action accept"; }
    chain VYOS_OUTPUT_filter { type filter hook output priority filter; policy accept; jump VYOS_STATE_POLICY; counter accept comment "OUT-filter default-action accept"; }
    chain VYOS_FRAG_MARK { type filter hook prerouting priority -450; policy accept; ip frag-off & 16383 != 0 meta mark set 0x000ffff1 return; }
    chain NAME_LAN-OUT { counter accept comment "ipv4-NAM-LAN-OUT-10"; counter drop comment "NAM-LAN-OUT default-action drop"; }
}
table ip vyos_nat {
    chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; counter jump VYOS_PRE_DNAT_HOOK; }
    chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; counter jump VYOS_PRE_SNAT_HOOK; oifname "wan0" counter masquerade comment "SRC-NAT-100"; }
    chain VYOS_PRE_DNAT_HOOK { return; }
    chain VYOS_PRE_SNAT_HOOK { return; }
}
RULES
$ACCTD rules router --lan lan0 --apply -ip4-src-group=5 -ip4-dst-group=4
