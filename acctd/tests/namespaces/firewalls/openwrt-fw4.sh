# traffic: forward
# in: all
# out: all-and-dropped
# doctor: OK
# OpenWrt's fw4 (without its flowtable and helpers) on a router, and acctd's rules.
# As firewall4 prints it for the default configuration, without the rules of IPv6 alone (openwrt/firewall4: tests/01_configuration/01_ruleset).
nft -f - <<'RULES'
table inet fw4 {
    chain input {
        type filter hook input priority filter; policy drop;
        iif "lo" accept
        ct state vmap { established : accept, related : accept }
        tcp flags & (fin | syn | rst | ack) == syn jump syn_flood
        iifname "lan0" jump input_lan
        iifname "wan0" jump input_wan
        jump handle_reject
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state vmap { established : accept, related : accept }
        iifname "lan0" jump forward_lan
        iifname "wan0" jump forward_wan
        jump handle_reject
    }
    chain output {
        type filter hook output priority filter; policy accept;
        oif "lo" accept
        ct state vmap { established : accept, related : accept }
        oifname "lan0" jump output_lan
        oifname "wan0" jump output_wan
    }
    chain prerouting { type filter hook prerouting priority filter; policy accept; iifname "lan0" jump helper_lan; }
    chain handle_reject { meta l4proto tcp reject with tcp reset; reject with icmpx port-unreachable; }
    chain syn_flood { limit rate 25/second burst 50 packets return; drop; }
    chain input_lan { jump accept_from_lan; }
    chain output_lan { jump accept_to_lan; }
    chain forward_lan { jump accept_to_wan; jump accept_to_lan; }
    chain helper_lan { }
    chain accept_from_lan { iifname "lan0" counter accept; }
    chain accept_to_lan { oifname "lan0" counter accept; }
    chain input_wan {
        meta nfproto ipv4 udp dport 68 counter accept
        meta nfproto ipv4 icmp type 8 counter accept
        meta nfproto ipv4 meta l4proto igmp counter accept
        jump reject_from_wan
    }
    chain output_wan { jump accept_to_wan; }
    chain forward_wan {
        meta l4proto esp counter jump accept_to_lan
        udp dport 500 counter jump accept_to_lan
        jump reject_to_wan
    }
    chain accept_to_wan { meta nfproto ipv4 oifname "wan0" ct state invalid counter drop; oifname "wan0" counter accept; }
    chain reject_from_wan { iifname "wan0" counter jump handle_reject; }
    chain reject_to_wan { oifname "wan0" counter jump handle_reject; }
    chain dstnat { type nat hook prerouting priority dstnat; policy accept; }
    chain srcnat { type nat hook postrouting priority srcnat; policy accept; oifname "wan0" jump srcnat_wan; }
    chain srcnat_wan { meta nfproto ipv4 masquerade; }
    chain raw_prerouting { type filter hook prerouting priority raw; policy accept; }
    chain raw_output { type filter hook output priority raw; policy accept; }
    chain mangle_prerouting { type filter hook prerouting priority mangle; policy accept; }
    chain mangle_postrouting {
        type filter hook postrouting priority mangle; policy accept;
        oifname "wan0" tcp flags syn / syn,fin,rst tcp option maxseg size set rt mtu
    }
    chain mangle_input { type filter hook input priority mangle; policy accept; }
    chain mangle_output { type route hook output priority mangle; policy accept; }
    chain mangle_forward {
        type filter hook forward priority mangle; policy accept;
        iifname "wan0" tcp flags syn / syn,fin,rst tcp option maxseg size set rt mtu
    }
}
RULES
$ACCTD rules router --lan lan0 --apply -ip4-src-group=5 -ip4-dst-group=4
