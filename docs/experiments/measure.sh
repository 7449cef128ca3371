# What logging a packet costs under the kernel that runs this, and whether all are counted; see another-kernel.md.
set -euo pipefail

PACKETS=20000
. docs/experiments/lab.sh

# rule STATEMENT: all that comes in meets it.
rule() {
    lab nft -f - <<END
table inet lab
delete table inet lab
table inet lab {
    chain prerouting {
        type filter hook prerouting priority raw
        iifname lan0 ip protocol icmp counter $1
    }
}
END
}

# The nanoseconds that a packet and its answer take.
send() {
    local begun=${EPOCHREALTIME/./}
    ip netns exec wire ping -f -q -c $PACKETS 10.9.0.1 >target/lab/ping
    echo $(((${EPOCHREALTIME/./} - begun) * 1000 / PACKETS))
}

rule ''
send >/dev/null
counted=$(send)

sysctl -qw kernel.bpf_stats_enabled=1
rule 'log group 5 snaplen 20 queue-threshold 50'
lab acctd -log-directory target/lab/files -ip4-src-group=5 -crosscheck=lan0 >/dev/null 2>target/lab/log &
says 'Started accounting'
logged=$(send)
program=$(bpftool prog show | grep 'name acctd_ingress' | grep -o 'run_time_ns [0-9]* run_cnt [0-9]*')
truth=$(lab nft list table inet lab | grep -o 'counter packets [0-9]*' | grep -o '[0-9]*')
ip netns pids lab | xargs kill -TERM
wait
# IP,SourceBytes,SourcePackets,DestBytes,DestPackets,TcSourceBytes,TcSourcePackets,…,Verdict
row=$(cut -d, -f2- target/lab/files/*.csv | grep '^10.9.0.2,')
IFS=, read -r _ _ nflog _ _ _ tc _ _ verdict <<<"$row"

uname -r
echo "$truth packets, $nflog logged, $tc by TC, $verdict"
echo "logging a packet: $((logged - counted)) ns"
read -r _ time _ runs <<<"$program"
echo "the TC program: $((time / runs)) ns"
