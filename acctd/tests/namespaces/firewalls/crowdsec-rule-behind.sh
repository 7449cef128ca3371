# flags: -ip4-src-group=5
# in: part
# doctor: behind-verdict warning
# says: crowdsec-blacklists
# A rule on input behind CrowdSec's firewall bouncer.
# After what users of it have shown in public reports.
nft -f - <<'RULES'
table ip crowdsec {
    set crowdsec-blacklists { type ipv4_addr; flags timeout; elements = { 10.1.0.3 timeout 4h, 198.51.100.7 timeout 1h }; }
    chain crowdsec-chain-input { type filter hook input priority filter - 10; policy accept; ip saddr @crowdsec-blacklists counter drop; }
    chain crowdsec-chain-forward { type filter hook forward priority filter - 10; policy accept; ip saddr @crowdsec-blacklists counter drop; }
}
RULES
nft 'table inet mine { chain in { type filter hook input priority 0; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
