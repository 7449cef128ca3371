# flags: -ip4-src-group=5
# in: all
# doctor: OK
# LXD's bridge with DNS that others may not ask, and a rule of its own hook and priority that was loaded later.
# After what users of it have shown in public reports.
nft -f - <<'RULES'
table inet lxd {
    chain pstrt.lxdbr0 { type nat hook postrouting priority srcnat; policy accept; ip saddr 10.77.0.0/24 ip daddr != 10.77.0.0/24 oifname != "lxdbr0" masquerade; }
    chain fwd.lxdbr0 { type filter hook forward priority filter; policy accept; ip version 4 oifname "lxdbr0" accept; ip version 4 iifname "lxdbr0" accept; }
    chain in.lxdbr0 { type filter hook input priority filter; policy accept; iifname "lxdbr0" tcp dport 53 accept; iifname "lxdbr0" udp dport 53 accept; iifname "lo" tcp dport 53 accept; iifname "lo" udp dport 53 accept; ip daddr 10.77.0.1 tcp dport 53 drop; ip daddr 10.77.0.1 udp dport 53 drop; iifname "lxdbr0" icmp type { destination-unreachable, time-exceeded, parameter-problem } accept; iifname "lxdbr0" udp dport 67 accept; }
    chain out.lxdbr0 { type filter hook output priority filter; policy accept; oifname "lxdbr0" tcp sport 53 accept; oifname "lxdbr0" udp sport 67 accept; }
}
RULES
nft 'table inet mine { chain in { type filter hook input priority 0; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
