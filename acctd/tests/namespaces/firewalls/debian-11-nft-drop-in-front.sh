# flags: -ip4-src-group=5
# in: none
# doctor: never-reached error
# says: rop
# nft 0.9.8, and a DROP of iptables' before the rule.
iptables -A INPUT -j DROP
iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
# before doctor
cp /usr/sbin/nft $SCRATCH/nft-real
cat > $SCRATCH/nft <<WRAPPER
#!/bin/sh
$SCRATCH/nft-real "\$@" | sed 's/{"xt": {[^}]*}}/{"xt": null}/g'
WRAPPER
chmod +x $SCRATCH/nft
mount --bind $SCRATCH/nft /usr/sbin/nft
