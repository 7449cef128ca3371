# traffic: forward
# flags: -ip4-src-group=5
# in: none
# doctor: behind-verdict warning
# says: reject
# A rule behind libvirt's table, for what goes to its guests: what is new is rejected.
# As libvirt has it by nftables (libvirt/libvirt: tests/networkxml2firewalldata/base.nftables, nat-default-linux.nftables).
ip link set wan0 down
ip link set wan0 name virbr0
ip link set virbr0 up
ip link add wan0 type bridge
ip route add 10.255.0.0/16 via 10.254.0.2
nft -f - <<'RULES'
table ip libvirt_network {
    chain forward { type filter hook forward priority 0; policy accept; counter jump guest_cross; counter jump guest_input; counter jump guest_output; }
    chain guest_output { ip saddr 192.168.122.0/24 iif "virbr0" counter accept; iif "virbr0" counter reject; }
    chain guest_input { oif "virbr0" ip daddr 192.168.122.0/24 ct state established,related counter accept; oif "virbr0" counter reject; }
    chain guest_cross { iif "virbr0" oif "virbr0" counter accept; }
    chain guest_nat {
        type nat hook postrouting priority 100; policy accept;
        ip saddr 192.168.122.0/24 ip daddr 224.0.0.0/24 counter return
        ip saddr 192.168.122.0/24 ip daddr 255.255.255.255 counter return
        meta l4proto tcp ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade to :1024-65535
        meta l4proto udp ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade to :1024-65535
        ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade
    }
}
RULES
nft 'table inet mine { chain f { type filter hook forward priority 10; oifname "virbr0" meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }; }'
