# flags: -ip4-src-group=5
# in: all
# doctor: OK
# Rules of iptables-nft on a machine without nft.
$ACCTD rules --format iptables --apply -ip4-src-group=5
# before doctor
mkdir $SCRATCH/upper $SCRATCH/work
mount -t tmpfs tmpfs $SCRATCH/upper
mkdir $SCRATCH/upper/u $SCRATCH/upper/w
mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=$SCRATCH/upper/u,workdir=$SCRATCH/upper/w /usr/sbin
rm /usr/sbin/nft
