# flags: -ip4-src-group=5
# in: all
# doctor: OK
# time: nft
# 37,900 rules, and a chain of acctd's.
{
    echo 'table inet many { chain in { type filter hook input priority 0; policy accept;'
    seq 37900 | awk '{ print "ip saddr 172." 16+int($1/65536) "." int($1/256)%256 "." $1%256 " counter drop" }'
    echo '}; }'
} | nft -f -
$ACCTD rules --apply -ip4-src-group=5
