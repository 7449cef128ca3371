# flags: -ip4-src-group=5
# in: all
# doctor: rules-unreadable warning
# says: no such luck
# The older iptables has the rule, and fails.
iptables-legacy -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
# before doctor
printf '#!/bin/sh\necho no such luck >&2; exit 3\n' > $SCRATCH/save
chmod +x $SCRATCH/save
mount --bind $SCRATCH/save /usr/sbin/iptables-legacy-save
