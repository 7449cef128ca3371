# traffic: forward
# flags: -ip4-src-group=5
# in: none
# live: yes
# doctor: never-reached error
# says: REJECT
# A rule at the end of FORWARD for what goes to libvirt's guests, all of which libvirt rejects.
ip link set wan0 down
ip link set wan0 name virbr0
ip link set virbr0 up
ip link add wan0 type bridge mcast_snooping 0
ip route add 10.255.0.0/16 via 10.254.0.2
iptables-restore $RULES/libvirt.iptables
iptables -A FORWARD -o virbr0 -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
