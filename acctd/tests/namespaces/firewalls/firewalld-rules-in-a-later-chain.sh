# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: filter_INPUT
# A log rule in a chain behind that of firewalld: what is rejected does not come so far.
nft -f - <<RULES
table inet firewalld {
    chain raw_PREROUTING { type filter hook prerouting priority -290; policy accept; }
    chain mangle_PREROUTING { type filter hook prerouting priority -140; policy accept; jump mangle_PREROUTING_POLICIES; }
    chain mangle_PREROUTING_POLICIES { iifname "lan0" jump mangle_PRE_policy_allow-host-ipv6; iifname "lan0" jump mangle_PRE_public; iifname "lan0" return; jump mangle_PRE_public; return; }
    chain mangle_PRE_policy_allow-host-ipv6 { }
    chain mangle_PRE_public { jump mangle_PRE_public_pre; jump mangle_PRE_public_deny; jump mangle_PRE_public_allow; }
    chain mangle_PRE_public_pre { }
    chain mangle_PRE_public_deny { }
    chain mangle_PRE_public_allow { }
    chain nat_POSTROUTING { type nat hook postrouting priority 110; policy accept; jump nat_POSTROUTING_POLICIES; }
    chain nat_POSTROUTING_POLICIES { oifname "lan0" jump nat_POST_public; return; }
    chain nat_POST_public { }
    chain filter_PREROUTING {
        type filter hook prerouting priority 10; policy accept;
        icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop
    }
    chain filter_INPUT {
        type filter hook input priority 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_INPUT_POLICIES
        reject with icmpx admin-prohibited
    }
    chain filter_INPUT_POLICIES {
        iifname "lan0" jump filter_IN_policy_allow-host-ipv6
        iifname "lan0" jump filter_IN_public
        iifname "lan0" reject with icmpx admin-prohibited
        jump filter_IN_policy_allow-host-ipv6
        jump filter_IN_public
        reject with icmpx admin-prohibited
    }
    chain filter_IN_policy_allow-host-ipv6 { icmpv6 type { nd-neighbor-advert, nd-router-advert } accept; }
    chain filter_IN_public { jump filter_IN_public_pre; jump filter_IN_public_log; jump filter_IN_public_deny; jump filter_IN_public_allow; meta l4proto { icmp, ipv6-icmp } accept; }
    chain filter_IN_public_pre { }
    chain filter_IN_public_log { }
    chain filter_IN_public_deny { }
    chain filter_IN_public_allow { tcp dport 22 accept; ip6 daddr fe80::/64 udp dport 546 accept; }
    chain filter_OUTPUT { type filter hook output priority 10; policy accept; ct state { established, related } accept; oifname "lo" accept; jump filter_OUTPUT_POLICIES; }
    chain filter_OUTPUT_POLICIES { oifname "lan0" jump filter_OUT_public; oifname "lan0" return; jump filter_OUT_public; return; }
    chain filter_OUT_public { }
}
RULES
nft 'table inet mine { chain in { type filter hook input priority 20; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
