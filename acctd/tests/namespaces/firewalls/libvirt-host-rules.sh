# traffic: forward
# in: part
# out: all
# live: yes
# doctor: forwarded-not-counted warning
# says: router --lan
# libvirt's default network, and acctd's rules for a host.
ip link set wan0 down
ip link set wan0 name virbr0
ip link set virbr0 up
ip link add wan0 type bridge mcast_snooping 0
ip route add 10.255.0.0/16 via 10.254.0.2
iptables-restore $RULES/libvirt.iptables
$ACCTD rules --apply -ip4-src-group=5 -ip4-dst-group=4
