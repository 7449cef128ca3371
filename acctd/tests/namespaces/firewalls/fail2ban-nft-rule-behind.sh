# flags: -ip4-src-group=5
# in: part
# live: yes
# doctor: behind-verdict warning
# says: reject
# fail2ban's nft actions have a base chain before that of the rule.
nft -f - <<'RULES'
table inet f2b-table {
    set addr-set-sshd { type ipv4_addr; elements = { 10.1.0.3 }; }
    chain f2b-chain { type filter hook input priority -1; policy accept; tcp dport 22 ip saddr @addr-set-sshd reject with icmp port-unreachable; }
}
table inet mine { chain in { type filter hook input priority 0; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }
RULES
