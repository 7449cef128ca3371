# flags: -ip4-src-group=5
# in: none
# doctor: nat-chain error
# A rule in the table nat, whose chains see nothing while nothing tracks connections.
iptables -t nat -A PREROUTING -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
