# flags: -ip4-src-group=5
# in: part
# live: yes
# doctor: behind-verdict warning
# says: established
# A rule at the end of the chain for the host, where only new connections of open ports do not come.
# As firewalld 2.5 has it (firewalld/firewalld: src/tests/features/policy_dispatch_*.at).
nft -f - <<'RULES'
table inet firewalld {
    chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; jump mangle_PREROUTING_dispatch; }
    chain mangle_PREROUTING_dispatch {
        iifname "lan0" jump mangle_PRE_public_dispatch
        jump mangle_PRE_public_dispatch
    }
    chain mangle_PRE_public_dispatch { jump mangle_PRE_policy_allow-host-ipv6; jump mangle_PRE_public; accept; }
    chain nat_PREROUTING { type nat hook prerouting priority dstnat + 10; policy accept; jump nat_PREROUTING_dispatch; }
    chain nat_PREROUTING_dispatch {
        iifname "lan0" jump nat_PRE_public_dispatch
        jump nat_PRE_public_dispatch
    }
    chain nat_PRE_public_dispatch { jump nat_PRE_policy_allow-host-ipv6; jump nat_PRE_public; accept; }
    chain nat_POSTROUTING { type nat hook postrouting priority srcnat + 10; policy accept; jump nat_POSTROUTING_dispatch; }
    chain nat_POSTROUTING_dispatch {
        iifname "lan0" jump nat_POST_public_dispatch_stage2
        jump nat_POST_public_dispatch_stage2
    }
    chain nat_POST_public_dispatch_stage2 { oifname "lan0" jump nat_POST_public_to_public; jump nat_POST_public_to_public; }
    chain nat_POST_public_to_public { jump nat_POST_public; accept; }
    chain nat_OUTPUT { type nat hook output priority -90; policy accept; jump nat_OUTPUT_dispatch; }
    chain nat_OUTPUT_dispatch {
        oifname "lan0" jump nat_OUT_HOST_to_public
        jump nat_OUT_HOST_to_public
    }
    chain nat_OUT_HOST_to_public { jump nat_OUT_public; accept; }
    chain filter_PREROUTING {
        type filter hook prerouting priority filter + 10; policy accept;
        icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop
    }
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_INPUT_dispatch
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24, 2002:a00::/24, 2002:7f00::/24, 2002:a9fe::/32, 2002:ac10::/28, 2002:c0a8::/32, 2002:e000::/19 } reject with icmpv6 addr-unreachable
        jump filter_FORWARD_dispatch
        reject with icmpx admin-prohibited
    }
    chain filter_OUTPUT {
        type filter hook output priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        oifname "lo" accept
        ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24, 2002:a00::/24, 2002:7f00::/24, 2002:a9fe::/32, 2002:ac10::/28, 2002:c0a8::/32, 2002:e000::/19 } reject with icmpv6 addr-unreachable
        jump filter_OUTPUT_dispatch
    }
    chain filter_INPUT_dispatch {
        iifname "lan0" jump filter_IN_public_to_HOST
        jump filter_IN_public_to_HOST
    }
    chain filter_IN_public_to_HOST { jump filter_IN_policy_allow-host-ipv6; jump filter_IN_public; reject with icmpx admin-prohibited; }
    chain filter_FORWARD_dispatch {
        iifname "lan0" jump filter_FWD_public_dispatch_stage2
        jump filter_FWD_public_dispatch_stage2
    }
    chain filter_FWD_public_dispatch_stage2 { oifname "lan0" jump filter_FWD_public_to_public; jump filter_FWD_public_to_public; }
    chain filter_FWD_public_to_public { jump filter_FWD_public; reject with icmpx admin-prohibited; }
    chain filter_OUTPUT_dispatch {
        oifname "lan0" jump filter_OUT_HOST_to_public
        jump filter_OUT_HOST_to_public
    }
    chain filter_OUT_HOST_to_public { jump filter_OUT_public; accept; }
    chain filter_IN_public { jump filter_IN_public_pre; jump filter_IN_public_log; jump filter_IN_public_deny; jump filter_IN_public_allow; jump filter_IN_public_post; meta l4proto { icmp, ipv6-icmp } accept; }
    chain filter_IN_public_pre { }
    chain filter_IN_public_log { }
    chain filter_IN_public_deny { }
    chain filter_IN_public_allow { ip6 daddr fe80::/64 udp dport 546 accept; tcp dport 22 accept; }
    chain filter_IN_public_post { }
    chain filter_FWD_public { jump filter_FWD_public_pre; jump filter_FWD_public_log; jump filter_FWD_public_deny; jump filter_FWD_public_allow; jump filter_FWD_public_post; meta l4proto { icmp, ipv6-icmp } accept; }
    chain filter_FWD_public_pre { }
    chain filter_FWD_public_log { }
    chain filter_FWD_public_deny { }
    chain filter_FWD_public_allow { oifname "lan0" accept; }
    chain filter_FWD_public_post { }
    chain filter_OUT_public { jump filter_OUT_public_pre; jump filter_OUT_public_log; jump filter_OUT_public_deny; jump filter_OUT_public_allow; jump filter_OUT_public_post; }
    chain filter_OUT_public_pre { }
    chain filter_OUT_public_log { }
    chain filter_OUT_public_deny { }
    chain filter_OUT_public_allow { }
    chain filter_OUT_public_post { }
    chain nat_PRE_public { jump nat_PRE_public_pre; jump nat_PRE_public_log; jump nat_PRE_public_deny; jump nat_PRE_public_allow; jump nat_PRE_public_post; }
    chain nat_PRE_public_pre { }
    chain nat_PRE_public_log { }
    chain nat_PRE_public_deny { }
    chain nat_PRE_public_allow { }
    chain nat_PRE_public_post { }
    chain nat_POST_public { jump nat_POST_public_pre; jump nat_POST_public_log; jump nat_POST_public_deny; jump nat_POST_public_allow; jump nat_POST_public_post; }
    chain nat_POST_public_pre { }
    chain nat_POST_public_log { }
    chain nat_POST_public_deny { }
    chain nat_POST_public_allow { }
    chain nat_POST_public_post { }
    chain nat_OUT_public { jump nat_OUT_public_pre; jump nat_OUT_public_log; jump nat_OUT_public_deny; jump nat_OUT_public_allow; jump nat_OUT_public_post; }
    chain nat_OUT_public_pre { }
    chain nat_OUT_public_log { }
    chain nat_OUT_public_deny { }
    chain nat_OUT_public_allow { }
    chain nat_OUT_public_post { }
    chain mangle_PRE_public { jump mangle_PRE_public_pre; jump mangle_PRE_public_log; jump mangle_PRE_public_deny; jump mangle_PRE_public_allow; jump mangle_PRE_public_post; }
    chain mangle_PRE_public_pre { }
    chain mangle_PRE_public_log { }
    chain mangle_PRE_public_deny { }
    chain mangle_PRE_public_allow { }
    chain mangle_PRE_public_post { }
    chain filter_IN_policy_allow-host-ipv6 { jump filter_IN_policy_allow-host-ipv6_pre; jump filter_IN_policy_allow-host-ipv6_log; jump filter_IN_policy_allow-host-ipv6_deny; jump filter_IN_policy_allow-host-ipv6_allow; jump filter_IN_policy_allow-host-ipv6_post; }
    chain filter_IN_policy_allow-host-ipv6_pre { }
    chain filter_IN_policy_allow-host-ipv6_log { }
    chain filter_IN_policy_allow-host-ipv6_deny { }
    chain filter_IN_policy_allow-host-ipv6_allow { icmpv6 type nd-neighbor-advert accept; icmpv6 type nd-neighbor-solicit accept; icmpv6 type nd-redirect accept; icmpv6 type nd-router-advert accept; }
    chain filter_IN_policy_allow-host-ipv6_post { }
    chain nat_PRE_policy_allow-host-ipv6 { jump nat_PRE_policy_allow-host-ipv6_pre; jump nat_PRE_policy_allow-host-ipv6_log; jump nat_PRE_policy_allow-host-ipv6_deny; jump nat_PRE_policy_allow-host-ipv6_allow; jump nat_PRE_policy_allow-host-ipv6_post; }
    chain nat_PRE_policy_allow-host-ipv6_pre { }
    chain nat_PRE_policy_allow-host-ipv6_log { }
    chain nat_PRE_policy_allow-host-ipv6_deny { }
    chain nat_PRE_policy_allow-host-ipv6_allow { }
    chain nat_PRE_policy_allow-host-ipv6_post { }
    chain mangle_PRE_policy_allow-host-ipv6 { jump mangle_PRE_policy_allow-host-ipv6_pre; jump mangle_PRE_policy_allow-host-ipv6_log; jump mangle_PRE_policy_allow-host-ipv6_deny; jump mangle_PRE_policy_allow-host-ipv6_allow; jump mangle_PRE_policy_allow-host-ipv6_post; }
    chain mangle_PRE_policy_allow-host-ipv6_pre { }
    chain mangle_PRE_policy_allow-host-ipv6_log { }
    chain mangle_PRE_policy_allow-host-ipv6_deny { }
    chain mangle_PRE_policy_allow-host-ipv6_allow { }
    chain mangle_PRE_policy_allow-host-ipv6_post { }
}
RULES
nft insert rule inet firewalld filter_IN_public_to_HOST meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50
