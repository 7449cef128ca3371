# flags: -ip4-src-group=5
# in: part
# doctor: some-packets warning
# says: connbytes
# Logged from the fifth packet of a connection on.
sysctl -qw net.netfilter.nf_conntrack_acct=1
iptables -A INPUT -m connbytes --connbytes 5 --connbytes-dir both --connbytes-mode packets -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
