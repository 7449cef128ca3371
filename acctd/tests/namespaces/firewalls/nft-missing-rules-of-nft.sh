# flags: -ip4-src-group=5
# in: all
# doctor: rules-unreadable warning
# says: nft
# Rules that nft has loaded, on a machine from which it is gone.
$ACCTD rules --apply -ip4-src-group=5
# before doctor
mkdir $SCRATCH/upper $SCRATCH/work
mount -t tmpfs tmpfs $SCRATCH/upper
mkdir $SCRATCH/upper/u $SCRATCH/upper/w
mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=$SCRATCH/upper/u,workdir=$SCRATCH/upper/w /usr/sbin
rm /usr/sbin/nft
