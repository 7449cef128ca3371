# flags: -ip4-src-group=5
# in: all
# doctor: OK
# Files that include each other, with definitions.
cat > $SCRATCH/defs.nft <<'RULES'
define lan = "lan0"
define ssh_from = { 10.1.0.0/16, 192.0.2.0/24 }
RULES
cat > $SCRATCH/main.nft <<RULES
include "$SCRATCH/defs.nft"
table inet zones {
    chain billing { type filter hook prerouting priority -290; iifname \$lan meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }
    chain lan_in { ip saddr \$ssh_from tcp dport 22 accept; icmp type echo-request accept; reject; }
    chain input { type filter hook input priority 0; policy drop; ct state vmap { established : accept, related : accept, invalid : drop }; iifname \$lan goto lan_in; }
}
RULES
nft -f $SCRATCH/main.nft
