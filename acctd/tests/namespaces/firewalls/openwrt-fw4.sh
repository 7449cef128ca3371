# traffic: forward
# in: all
# out: all-and-dropped
# live: yes
# doctor: OK
# OpenWrt's fw4 (without its flowtable and helpers) on a router, and acctd's rules.
nft -f $RULES/openwrt-fw4.nft
$ACCTD rules router --lan lan0 --apply -ip4-src-group=5 -ip4-dst-group=4
