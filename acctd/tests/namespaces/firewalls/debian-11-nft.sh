# flags: -ip4-src-group=5
# in: all
# doctor: OK
# nft 0.9.8 shows no expression of iptables' ("xt": null).
$ACCTD rules --format iptables --apply -ip4-src-group=5
# before doctor
cp /usr/sbin/nft $SCRATCH/nft-real
cat > $SCRATCH/nft <<WRAPPER
#!/bin/sh
$SCRATCH/nft-real "\$@" | sed 's/{"xt": {[^}]*}}/{"xt": null}/g'
WRAPPER
chmod +x $SCRATCH/nft
mount --bind $SCRATCH/nft /usr/sbin/nft
