# flags: -ip4-src-group=5
# in: all
# doctor: OK
# Interfaces are told apart by a map of verdicts; the rule is first in the chain of lan0.
nft 'table inet t {
    chain lan { meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; ct state established,related accept; tcp dport 22 accept; drop; }
    chain wan { ct state established,related accept; drop; }
    chain in { type filter hook input priority 0; policy drop; iifname vmap { "lo" : accept, "lan0" : jump lan, "wan0" : jump wan }; }; }'
