# flags: -ip4-src-group=5
# in: all
# doctor: rules-unreadable warning
# says: iptables-legacy
# The older iptables has the rule, and is gone.
iptables-legacy -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
# before doctor
mkdir $SCRATCH/upper $SCRATCH/work
mount -t tmpfs tmpfs $SCRATCH/upper
mkdir $SCRATCH/upper/u $SCRATCH/upper/w
mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=$SCRATCH/upper/u,workdir=$SCRATCH/upper/w /usr/sbin
rm -f /usr/sbin/iptables-legacy /usr/sbin/iptables-legacy-save
