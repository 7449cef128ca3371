# flags: -ip4-src-group=5
# in: all
# doctor: not logged-twice
# A map of protocols leads to three chains that log.
nft 'table inet t { chain a { log group 5 snaplen 20 queue-threshold 50; }; chain b { log group 5 snaplen 20 queue-threshold 50; accept; }; chain d { log group 5 snaplen 20 queue-threshold 50; return; }
    chain c { type filter hook input priority 0; ip protocol vmap { tcp : jump a, udp : goto b, icmp : jump d }; }; }'
