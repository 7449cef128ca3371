# flags: -ip4-src-group=5
# in: all
# doctor: OK
# A rule on ingress copies from the header of IP on.
nft 'table netdev t { chain c { type filter hook ingress device "lan0" priority 0; meta protocol ip log group 5 snaplen 20 queue-threshold 50; }; }'
