# flags: -ip4-src-group=5
# in: all
# doctor: OK
# 14 chains, each of which jumps to the next twice.
{
    echo 'table inet deep {'
    seq 14 | sed 's/.*/chain c& { }/'
    echo 'chain c15 { tcp dport 25 counter; }'
    echo 'chain in { type filter hook input priority 0; tcp dport 1-100 jump c1; udp dport 1-100 jump c1; }'
    echo '}'
    seq 14 | awk '{ print "add rule inet deep c" $1 " tcp dport " $1 " jump c" $1+1; print "add rule inet deep c" $1 " udp dport " $1 " jump c" $1+1 }'
} | nft -f -
$ACCTD rules --apply -ip4-src-group=5
