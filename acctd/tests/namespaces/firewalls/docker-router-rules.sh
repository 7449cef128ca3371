# traffic: forward
# in: all
# out: all
# live: yes
# doctor: OK
# A Docker host, its containers behind docker0, and acctd's rules for a router.
# As Docker 27 has it (moby/moby: integration/network/bridge/iptablesdoc/generated/usernet-portmap.md of 2024).
ip link add docker0 type bridge mcast_snooping 0
ip link set docker0 up
ip link set wan0 master docker0
ip route replace 10.255.0.0/16 dev docker0
ip neigh add 10.255.0.1 lladdr 02:00:00:00:00:01 dev docker0
iptables-restore <<RULES
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.18.0.0/16 ! -o br-shop -j MASQUERADE
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.18.0.2/32 -d 172.18.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A DOCKER -i br-shop -j RETURN
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i br-shop -p tcp -m tcp --dport 8443 -j DNAT --to-destination 172.18.0.2:80
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o br-shop -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o br-shop -j DOCKER
-A FORWARD -i br-shop ! -o br-shop -j ACCEPT
-A FORWARD -i br-shop -o br-shop -j ACCEPT
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.18.0.2/32 ! -i br-shop -o br-shop -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER ! -i br-shop -o br-shop -j DROP
-A DOCKER-ISOLATION-STAGE-1 -i br-shop ! -o br-shop -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o br-shop -j DROP
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
RULES
$ACCTD rules router --lan lan0 --apply -ip4-src-group=5 -ip4-dst-group=4
