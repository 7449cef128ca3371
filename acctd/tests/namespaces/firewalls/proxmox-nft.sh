# in: all
# out: all
# doctor: OK
# Proxmox VE's firewall of nftables on a node, and acctd's rules.
# As proxmox-firewall has it for a node (proxmox/proxmox-firewall: proxmox-firewall/resources/proxmox-firewall.nft), shortened.
nft -f - <<'RULES'
table inet proxmox-firewall {
    set v4-dc/management { type ipv4_addr; flags interval; auto-merge; elements = { 10.1.0.0/16 }; }
    set v4-dc/management-nomatch { type ipv4_addr; flags interval; auto-merge; }
    set v4-synflood-limit { type ipv4_addr; timeout 60s; flags dynamic; }
    map bridge-map { type ifname : verdict; }
    chain do-reject { meta pkttype broadcast drop; ip saddr 224.0.0.0/4 drop; meta l4proto tcp reject with tcp reset; meta l4proto { icmp, ipv6-icmp } reject; reject with icmp host-prohibited; reject with icmpv6 admin-prohibited; drop; }
    chain accept-management { ip saddr @v4-dc/management ip saddr != @v4-dc/management-nomatch accept; }
    chain ratelimit-synflood { ip saddr != @v4-dc/management add @v4-synflood-limit { ip saddr limit rate over 200/second burst 1000 packets } drop; return; }
    chain block-synflood { tcp flags & (fin | syn | rst | ack) != syn return; jump ratelimit-synflood; }
    chain log-drop-smurfs { drop; }
    chain block-smurfs { ip saddr 0.0.0.0 return; meta pkttype broadcast goto log-drop-smurfs; ip saddr 224.0.0.0/4 goto log-drop-smurfs; }
    chain invalid-conntrack { drop; }
    chain allow-icmp { icmp type { destination-unreachable, source-quench, time-exceeded } accept; }
    chain default-in {
        iifname "lo" accept
        jump allow-icmp
        ct state vmap { invalid : jump invalid-conntrack, established : accept, related : accept }
        meta l4proto igmp accept
        tcp dport { 8006, 5900-5999, 3128, 22 } jump accept-management
        udp dport 5405-5412 accept
        udp dport { 135, 137-139, 445 } goto do-reject
        udp dport 1900 drop
        udp sport 53 drop
    }
    chain default-out { oifname "lo" accept; jump allow-icmp; ct state vmap { invalid : jump invalid-conntrack, established : accept, related : accept }; }
    chain option-in { jump block-synflood; jump block-smurfs; }
    chain host-in { }
    chain cluster-in { drop; }
    chain host-bridge-input { type filter hook input priority filter - 1; policy accept; iifname vmap @bridge-map; }
    chain host-bridge-output { type filter hook output priority filter + 1; policy accept; oifname vmap @bridge-map; }
    chain input { type filter hook input priority filter; policy drop; jump default-in; jump option-in; jump host-in; jump cluster-in; }
    chain output { type filter hook output priority filter; policy accept; jump default-out; }
    chain forward { type filter hook forward priority filter; policy accept; ct state vmap { established : accept, related : accept, invalid : jump invalid-conntrack }; }
}
table bridge proxmox-firewall-guests {
    map vm-map-in { typeof oifname : verdict; }
    map vm-map-out { typeof iifname : verdict; }
    chain vm-out { type filter hook prerouting priority 0; policy accept; iifname vmap @vm-map-out; }
    chain vm-in { type filter hook postrouting priority 0; policy accept; oifname vmap @vm-map-in; }
}
RULES
$ACCTD rules --apply -ip4-src-group=5 -ip4-dst-group=4
