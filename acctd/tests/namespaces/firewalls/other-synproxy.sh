# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: synproxy
# Connections to one port are answered by synproxy, before the rule.
nft 'table inet t { chain pre { type filter hook prerouting priority -300; tcp dport 8080 tcp flags syn notrack; }
    chain in { type filter hook input priority 0; tcp dport 8080 ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
