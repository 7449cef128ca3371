# flags: -ip4-src-group=5
# in: all
# doctor: OK
# The rule is the first of a chain with the policy drop.
nft -f - <<'RULES'
table inet filter {
    comment "managed by ansible"
    chain input {
        comment "drop all but what follows"
        type filter hook input priority filter; policy drop;
        meta nfproto ipv4 counter log group 5 snaplen 20 queue-threshold 50 comment "billing; drop nothing here"
        ct state { established, related } counter accept comment "known"
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport { ssh, http } ct state new accept
    }
}
RULES
