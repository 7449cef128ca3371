# in: all
# out: all
# doctor: OK
# Mullvad's lockdown with the local network allowed, and acctd's rules.
# After what users of it have shown in public reports.
nft -f - <<'RULES'
table inet mullvad {
    chain prerouting { type filter hook prerouting priority -199; policy accept; iif != "lo" ct mark 0x00000f41 meta mark set 0x6d6f6c65; }
    chain output { type filter hook output priority filter; policy drop; oif "lo" accept; ct mark 0x00000f41 accept; udp sport 68 ip daddr 255.255.255.255 udp dport 67 accept; ip daddr 198.51.100.196 tcp dport 443 meta skuid 0 accept; udp dport 53 reject; tcp dport 53 reject with tcp reset; ip daddr { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 } accept; reject; }
    chain input { type filter hook input priority filter; policy drop; iif "lo" accept; ct mark 0x00000f41 accept; udp sport 67 udp dport 68 accept; ip saddr 198.51.100.196 tcp sport 443 ct state established accept; ip saddr { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 } accept; }
    chain forward { type filter hook forward priority filter; policy drop; ct mark 0x00000f41 accept; reject; }
    chain mangle { type route hook output priority mangle; policy accept; oif != "lo" meta cgroup 5087041 ct mark set 0x00000f41 meta mark set 0x6d6f6c65; }
    chain nat { type nat hook postrouting priority srcnat; policy accept; oif != "lo" ct mark 0x00000f41 masquerade; }
}
RULES
$ACCTD rules --apply -ip4-src-group=5 -ip4-dst-group=4
