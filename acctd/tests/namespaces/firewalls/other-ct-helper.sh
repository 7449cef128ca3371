# flags: -ip4-src-group=5
# in: all
# doctor: OK
# Helpers, timeouts and zones of connection tracking.
nft 'table inet t { ct helper ftp-standard { type "ftp" protocol tcp; }
    ct timeout slow { protocol tcp; l3proto ip; policy = { established: 3600 }; }
    chain pre { type filter hook prerouting priority -150; tcp dport 21 ct helper set "ftp-standard"; tcp dport 8080 ct timeout set "slow"; }
    chain zones { type filter hook prerouting priority -300; iifname "wan0" ct zone set 2; udp dport 53 notrack; }
    chain in { type filter hook input priority 0; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }' || nft 'table inet t { chain zones { type filter hook prerouting priority -300; iifname "wan0" ct zone set 2; udp dport 53 notrack; }; chain in { type filter hook input priority 0; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
