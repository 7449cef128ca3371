# in: all
# out: all
# live: yes
# doctor: OK
# firewalld's nft back end with acctd's rules: reject at the end.
nft -f $RULES/firewalld.nft
$ACCTD rules --apply -ip4-src-group=5 -ip4-dst-group=4
