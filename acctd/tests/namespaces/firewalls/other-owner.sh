# flags: -ip4-dst-group=4
# out: part
# doctor: some-packets warning
# says: owner
# What programs of root send: the kernel's own answers have no owner.
iptables -A OUTPUT -m owner --uid-owner 0 -j NFLOG --nflog-group 4 --nflog-size 20 --nflog-threshold 50
