# flags: -ip4-src-group=5
# in: all
# doctor: some-packets warning
# says: time
# Logged from Monday to Sunday, each with a second missing.
iptables -A INPUT -m time --timestart 00:00:00 --timestop 23:59:59 --weekdays Mon,Tue,Wed,Thu,Fri,Sat,Sun -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
