# traffic: forward
# flags: -ip4-src-group=5
# in: none
# doctor: behind-verdict warning
# says: counter drop
# A rule behind Docker's chains, of what goes to containers: what is new, and they do not publish, is dropped.
# As Docker 29 has it (moby/moby: integration/network/bridge/nftablesdoc/generated/usernet-portmap.md).
ip link add docker0 type bridge
ip link set docker0 up
ip link set wan0 master docker0
ip route replace 10.255.0.0/16 dev docker0
ip neigh add 10.255.0.1 lladdr 02:00:00:00:00:01 dev docker0
nft -f - <<'RULES'
table ip docker-bridges {
    map filter-forward-in-jumps { type ifname : verdict; elements = { "docker0" : jump filter-forward-in__docker0, "br-shop" : jump filter-forward-in__br-shop }; }
    map filter-forward-out-jumps { type ifname : verdict; elements = { "docker0" : jump filter-forward-out__docker0, "br-shop" : jump filter-forward-out__br-shop }; }
    map nat-postrouting-in-jumps { type ifname : verdict; elements = { "docker0" : jump nat-postrouting-in__docker0, "br-shop" : jump nat-postrouting-in__br-shop }; }
    map nat-postrouting-out-jumps { type ifname : verdict; elements = { "docker0" : jump nat-postrouting-out__docker0, "br-shop" : jump nat-postrouting-out__br-shop }; }
    chain filter-FORWARD { type filter hook forward priority filter; policy accept; oifname vmap @filter-forward-in-jumps; iifname vmap @filter-forward-out-jumps; }
    chain nat-OUTPUT { type nat hook output priority -100; policy accept; ip daddr != 127.0.0.0/8 fib daddr type local counter jump nat-prerouting-and-output; }
    chain nat-POSTROUTING { type nat hook postrouting priority srcnat; policy accept; iifname vmap @nat-postrouting-out-jumps; oifname vmap @nat-postrouting-in-jumps; }
    chain nat-PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local counter jump nat-prerouting-and-output; }
    chain nat-prerouting-and-output { iifname != "br-shop" tcp dport 8443 counter dnat to 172.18.0.2:80 comment "DNAT"; }
    chain raw-PREROUTING { type filter hook prerouting priority raw; policy accept; ip daddr 172.18.0.2 iifname != "br-shop" counter drop comment "DROP DIRECT ACCESS"; }
    chain filter-forward-in__docker0 { ct state established,related counter accept; iifname "docker0" counter accept comment "ICC"; counter drop comment "UNPUBLISHED PORT DROP"; }
    chain filter-forward-out__docker0 { ct state established,related counter accept; counter accept comment "OUTGOING"; }
    chain nat-postrouting-in__docker0 { }
    chain nat-postrouting-out__docker0 { oifname != "docker0" ip saddr 172.17.0.0/16 counter masquerade comment "MASQUERADE"; }
    chain filter-forward-in__br-shop { ct state established,related counter accept; iifname "br-shop" counter accept comment "ICC"; ip daddr 172.18.0.2 tcp dport 80 counter accept; counter drop comment "UNPUBLISHED PORT DROP"; }
    chain filter-forward-out__br-shop { ct state established,related counter accept; counter accept comment "OUTGOING"; }
    chain nat-postrouting-in__br-shop { }
    chain nat-postrouting-out__br-shop { oifname != "br-shop" ip saddr 172.18.0.0/16 counter masquerade comment "MASQUERADE"; }
}
RULES
nft 'table ip mine { chain f { type filter hook forward priority 10; oifname "docker0" log group 5 snaplen 20 queue-threshold 50; }; }'
