# flags: -ip4-src-group=5
# in: all
# doctor: OK
# CrowdSec's firewall bouncer (a set whose elements expire), and acctd's rules.
# After what users of it have shown in public reports.
nft -f - <<'RULES'
table ip crowdsec {
    set crowdsec-blacklists { type ipv4_addr; flags timeout; elements = { 10.1.0.3 timeout 4h, 198.51.100.7 timeout 1h }; }
    chain crowdsec-chain-input { type filter hook input priority filter - 10; policy accept; ip saddr @crowdsec-blacklists counter drop; }
    chain crowdsec-chain-forward { type filter hook forward priority filter - 10; policy accept; ip saddr @crowdsec-blacklists counter drop; }
}
RULES
$ACCTD rules --apply -ip4-src-group=5
