# flags: -ip4-src-group=5
# in: part
# doctor: limited error
# says: hashlimit
# Logged at most once a minute per source.
iptables -A INPUT -m hashlimit --hashlimit-upto 1/min --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-name h -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
