# traffic: forward
# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: established
# A rule put into a chain of OpenWrt's fw4 by /etc/nftables.d: established connections do not come there.
nft -f - <<'RULES'
table inet fw4 {
    set bans { type ipv4_addr; flags timeout; }
    chain input {
        type filter hook input priority 0; policy drop;
        iif "lo" accept
        ct state vmap { established : accept, related : accept, invalid : drop }
        tcp flags & (fin|syn|rst|ack) == syn jump syn_flood
        iifname "lan0" jump input_lan
        iifname "wan0" jump input_wan
        jump handle_reject
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        iifname "lan0" jump forward_lan
        iifname "wan0" jump forward_wan
        jump handle_reject
    }
    chain output {
        type filter hook output priority 0; policy accept;
        oif "lo" accept
        ct state vmap { established : accept, related : accept, invalid : drop }
        oifname "lan0" jump output_lan
        oifname "wan0" jump output_wan
    }
    chain prerouting { type filter hook prerouting priority 0; policy accept; iifname "lan0" jump helper_lan; }
    chain handle_reject { meta l4proto tcp reject with tcp reset; reject with icmpx port-unreachable; }
    chain syn_flood { limit rate 25/second burst 50 packets return; drop; }
    chain input_lan { ct status dnat accept; jump accept_from_lan; }
    chain output_lan { jump accept_to_lan; }
    chain forward_lan { jump accept_to_wan; ct status dnat accept; jump accept_to_lan; }
    chain helper_lan { }
    chain accept_from_lan { iifname "lan0" counter accept; }
    chain accept_to_lan { oifname "lan0" counter accept; }
    chain input_wan { meta nfproto ipv4 udp dport 68 counter accept; icmp type echo-request counter accept; jump reject_from_wan; }
    chain output_wan { jump accept_to_wan; }
    chain forward_wan { ct status dnat accept; jump reject_to_wan; }
    chain accept_to_wan { meta nfproto ipv4 oifname "wan0" ct state invalid counter drop; oifname "wan0" counter accept; }
    chain reject_from_wan { iifname "wan0" counter jump handle_reject; }
    chain reject_to_wan { oifname "wan0" counter jump handle_reject; }
    chain dstnat { type nat hook prerouting priority -100; policy accept; }
    chain srcnat { type nat hook postrouting priority 100; policy accept; oifname "wan0" jump srcnat_wan; }
    chain srcnat_wan { meta nfproto ipv4 masquerade; }
    chain raw_prerouting { type filter hook prerouting priority -300; policy accept; }
    chain raw_output { type filter hook output priority -300; policy accept; }
    chain mangle_prerouting { type filter hook prerouting priority -150; policy accept; }
    chain mangle_postrouting { type filter hook postrouting priority -150; policy accept; oifname "wan0" tcp flags & (syn|rst) == syn tcp option maxseg size set rt mtu; }
    chain mangle_forward { type filter hook forward priority -150; policy accept; }
}
RULES
nft insert rule inet fw4 forward_lan meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50
