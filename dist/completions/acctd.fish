# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_acctd_global_optspecs
    string join \n ip4-src-group= ip4-dst-group= ip6-src-group= ip6-dst-group= ip4-prefix-length= ip6-prefix-length= max-prefixes= interval= log-directory= checkpoint= backlog= utc= crosscheck= crosscheck-attach= crosscheck-max-prefixes= crosscheck-object= crosscheck-wire= explain= crosscheck-pin= syslog= verbose= debug= listen= cpus= priority= user= cpuprofile= h/help V/version
end

function __fish_acctd_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_acctd_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_acctd_using_subcommand
    set -l cmd (__fish_acctd_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c acctd -n "__fish_acctd_needs_command" -l ip4-src-group -d 'NFLOG groups of IPv4 packets whose source address is accounted' -r
complete -c acctd -n "__fish_acctd_needs_command" -l ip4-dst-group -d 'NFLOG groups of IPv4 packets whose destination address is accounted' -r
complete -c acctd -n "__fish_acctd_needs_command" -l ip6-src-group -d 'NFLOG groups of IPv6 packets whose source address is accounted' -r
complete -c acctd -n "__fish_acctd_needs_command" -l ip6-dst-group -d 'NFLOG groups of IPv6 packets whose destination address is accounted' -r
complete -c acctd -n "__fish_acctd_needs_command" -l ip4-prefix-length -d 'Prefix length of IPv4 rows, 0 to 32' -r
complete -c acctd -n "__fish_acctd_needs_command" -l ip6-prefix-length -d 'Prefix length of IPv6 rows, 0 to 128' -r
complete -c acctd -n "__fish_acctd_needs_command" -l max-prefixes -d 'The most prefixes that each group counts in an interval' -r
complete -c acctd -n "__fish_acctd_needs_command" -l interval -d 'Length of an interval: at least 1s, and a divisor of a day or whole days. One file per interval' -r
complete -c acctd -n "__fish_acctd_needs_command" -l log-directory -d 'Directory for the files; created with its parents if it is missing' -r -F
complete -c acctd -n "__fish_acctd_needs_command" -l checkpoint -d 'How often to save the open interval, against a crash or a power cut; 0 is never' -r
complete -c acctd -n "__fish_acctd_needs_command" -l backlog -d 'The most rows that wait in memory while the disk accepts no files' -r
complete -c acctd -n "__fish_acctd_needs_command" -l utc -d 'Write file names and the Time column in UTC instead of local time' -r
complete -c acctd -n "__fish_acctd_needs_command" -l crosscheck -d 'Also count the packets of these interfaces with a TC program; each row gets both counts and a verdict' -r
complete -c acctd -n "__fish_acctd_needs_command" -l crosscheck-attach -d 'How to attach the TC programs' -r -f -a "auto\t'TCX if the kernel has it, else clsact'
tcx\t'TCX links (Linux 6.6), before all others; they end with the process'
clsact\t'Filters of the clsact qdisc'"
complete -c acctd -n "__fish_acctd_needs_command" -l crosscheck-max-prefixes -d 'The most prefixes in the kernel\'s map of an interval. Source and destination count separately' -r
complete -c acctd -n "__fish_acctd_needs_command" -l crosscheck-object -d 'Attach the programs of this eBPF object instead of acctd\'s; it must keep the map contract' -r -F
complete -c acctd -n "__fish_acctd_needs_command" -l crosscheck-wire -d 'Add columns for what the packets are on the wire. If offloads merged a packet (GRO) or will split it (GSO, TSO), each of its segments counts, with its own headers' -r
complete -c acctd -n "__fish_acctd_needs_command" -l explain -d 'Explain by itself what is uncovered or extra: after a file with such rows, sample the ten worst prefixes for 10s, each prefix once' -r
complete -c acctd -n "__fish_acctd_needs_command" -l crosscheck-pin -d 'Pin the cross-check\'s maps in this directory of bpffs, for bpftool' -r -F
complete -c acctd -n "__fish_acctd_needs_command" -l syslog -d 'Log to syslog instead of stderr' -r
complete -c acctd -n "__fish_acctd_needs_command" -l verbose -d 'Log more details' -r
complete -c acctd -n "__fish_acctd_needs_command" -l debug -d 'Log each packet; implies --verbose' -r
complete -c acctd -n "__fish_acctd_needs_command" -l listen -d 'Where to answer over HTTP: a page for browsers, `/metrics` for Prometheus, `/healthz`, `/status`, `/top`' -r
complete -c acctd -n "__fish_acctd_needs_command" -l cpus -d 'CPUs to use; 0 is all' -r
complete -c acctd -n "__fish_acctd_needs_command" -l priority -d 'Nice value of the process, -20 (first) to 19 (last)' -r
complete -c acctd -n "__fish_acctd_needs_command" -l user -d 'Become this user at the start. Requires root' -r
complete -c acctd -n "__fish_acctd_needs_command" -l cpuprofile -d 'Write a CPU profile for pprof, from start to stop' -r -F
complete -c acctd -n "__fish_acctd_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c acctd -n "__fish_acctd_needs_command" -s V -l version -d 'Print version'
complete -c acctd -n "__fish_acctd_needs_command" -f -a "rules" -d 'Print the nftables or iptables rules that fit the flags; or load, remove or check them'
complete -c acctd -n "__fish_acctd_needs_command" -f -a "doctor" -d 'Report what would keep packets from being counted, each problem with its cure'
complete -c acctd -n "__fish_acctd_needs_command" -f -a "status" -d 'Show what a running acctd is doing'
complete -c acctd -n "__fish_acctd_needs_command" -f -a "top" -d 'Show the prefixes with the most traffic, as it is now'
complete -c acctd -n "__fish_acctd_needs_command" -f -a "explain" -d 'Sample packets that a running acctd\'s rules miss, and say why they do'
complete -c acctd -n "__fish_acctd_needs_command" -f -a "report" -d 'Add up files: totals, percentiles, customers, and what may be missing'
complete -c acctd -n "__fish_acctd_needs_command" -f -a "archive" -d 'Put the files of days that are over into one Parquet file for each day'
complete -c acctd -n "__fish_acctd_needs_command" -f -a "ship" -d 'Send the files of this host to ClickHouse, or its archives to a directory or S3, each exactly once'
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l lan -d 'Interfaces that lead to the accounted addresses; for a bridge, its ports' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l egress-hook -d 'Log outgoing packets on the netdev egress hook of these interfaces, where they have a time stamp' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l fan-out -d 'Spread each direction over this many groups, by CPU: its group and the numbers that follow' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l snaplen -d 'Bytes of each packet to copy to acctd; default: the IP header alone' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l threshold -d 'How many packets the kernel collects before it sends them to acctd' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l format -d 'The program that loads the rules' -r -f -a "nft\t'A separate table for nft'
iptables\t'Separate chains for iptables and ip6tables, in the table mangle'"
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l ip4-src-group -d 'NFLOG groups of IPv4 packets whose source address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l ip4-dst-group -d 'NFLOG groups of IPv4 packets whose destination address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l ip6-src-group -d 'NFLOG groups of IPv6 packets whose source address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l ip6-dst-group -d 'NFLOG groups of IPv6 packets whose destination address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l forwarded -d 'Count only what the router forwards, not what it receives or sends itself'
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l apply -d 'Load the rules. They replace those that acctd loaded before, for either program'
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l remove -d 'Remove the rules that acctd loaded before'
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l check -d 'Show how the loaded rules differ from these; exit code 1 if they differ'
complete -c acctd -n "__fish_acctd_using_subcommand rules" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l live -d 'Also measure for this long: packets that pass the interfaces, match the rules, and are logged' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l ip4-src-group -d 'NFLOG groups of IPv4 packets whose source address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l ip4-dst-group -d 'NFLOG groups of IPv4 packets whose destination address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l ip6-src-group -d 'NFLOG groups of IPv6 packets whose source address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l ip6-dst-group -d 'NFLOG groups of IPv6 packets whose destination address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l ip4-prefix-length -d 'Prefix length of IPv4 rows, 0 to 32' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l ip6-prefix-length -d 'Prefix length of IPv6 rows, 0 to 128' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l max-prefixes -d 'The most prefixes that each group counts in an interval' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l interval -d 'Length of an interval: at least 1s, and a divisor of a day or whole days. One file per interval' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l log-directory -d 'Directory for the files; created with its parents if it is missing' -r -F
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l checkpoint -d 'How often to save the open interval, against a crash or a power cut; 0 is never' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l backlog -d 'The most rows that wait in memory while the disk accepts no files' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l utc -d 'Write file names and the Time column in UTC instead of local time' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l crosscheck -d 'Also count the packets of these interfaces with a TC program; each row gets both counts and a verdict' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l crosscheck-attach -d 'How to attach the TC programs' -r -f -a "auto\t'TCX if the kernel has it, else clsact'
tcx\t'TCX links (Linux 6.6), before all others; they end with the process'
clsact\t'Filters of the clsact qdisc'"
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l crosscheck-max-prefixes -d 'The most prefixes in the kernel\'s map of an interval. Source and destination count separately' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l crosscheck-object -d 'Attach the programs of this eBPF object instead of acctd\'s; it must keep the map contract' -r -F
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l crosscheck-wire -d 'Add columns for what the packets are on the wire. If offloads merged a packet (GRO) or will split it (GSO, TSO), each of its segments counts, with its own headers' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l explain -d 'Explain by itself what is uncovered or extra: after a file with such rows, sample the ten worst prefixes for 10s, each prefix once' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l crosscheck-pin -d 'Pin the cross-check\'s maps in this directory of bpffs, for bpftool' -r -F
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l syslog -d 'Log to syslog instead of stderr' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l verbose -d 'Log more details' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l debug -d 'Log each packet; implies --verbose' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l listen -d 'Where to answer over HTTP: a page for browsers, `/metrics` for Prometheus, `/healthz`, `/status`, `/top`' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l cpus -d 'CPUs to use; 0 is all' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l priority -d 'Nice value of the process, -20 (first) to 19 (last)' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l user -d 'Become this user at the start. Requires root' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l cpuprofile -d 'Write a CPU profile for pprof, from start to stop' -r -F
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l json -d 'Print JSON: a list of findings, each with its severity, id, text and cure'
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c acctd -n "__fish_acctd_using_subcommand status" -l listen -d 'Where acctd listens: the value of its flag --listen; if that is a list, the first address' -r
complete -c acctd -n "__fish_acctd_using_subcommand status" -l json -d 'Print the JSON that acctd answers with'
complete -c acctd -n "__fish_acctd_using_subcommand status" -s h -l help -d 'Print help'
complete -c acctd -n "__fish_acctd_using_subcommand top" -l listen -d 'Where acctd listens: the value of its flag --listen; if that is a list, the first address' -r
complete -c acctd -n "__fish_acctd_using_subcommand top" -l sort -d 'By what the prefixes are sorted, the largest first' -r -f -a "bytes\t'Bytes in and out together'
in\t'Bytes that were sent to the prefix'
out\t'Bytes that it sent'
packets\t'Packets in and out together'"
complete -c acctd -n "__fish_acctd_using_subcommand top" -l filter -d 'Only prefixes in this one' -r
complete -c acctd -n "__fish_acctd_using_subcommand top" -l n -d 'How many prefixes; default: 20, and on a terminal what fits there' -r
complete -c acctd -n "__fish_acctd_using_subcommand top" -l every -d 'How often to ask' -r
complete -c acctd -n "__fish_acctd_using_subcommand top" -l once -d 'Print the prefixes once, without a terminal'
complete -c acctd -n "__fish_acctd_using_subcommand top" -l json -d 'With --once: print the JSON that acctd answers with'
complete -c acctd -n "__fish_acctd_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c acctd -n "__fish_acctd_using_subcommand explain" -l for -d 'How long to sample, at most 30s' -r
complete -c acctd -n "__fish_acctd_using_subcommand explain" -l listen -d 'Where acctd listens: the value of its flag --listen; if that is a list, the first address' -r
complete -c acctd -n "__fish_acctd_using_subcommand explain" -l check -d 'Have nft check each command against the loaded rules, without loading it'
complete -c acctd -n "__fish_acctd_using_subcommand explain" -l trace -d 'Have nft trace packets of the flows for two seconds, and show the rules that they meet (Linux 5.12)'
complete -c acctd -n "__fish_acctd_using_subcommand explain" -l json -d 'Print JSON: what both sides saw, by flow, and the causes'
complete -c acctd -n "__fish_acctd_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c acctd -n "__fish_acctd_using_subcommand report" -l from-clickhouse -d 'Ask a database to which acctd ship has sent the files: `https://db.example.net:8443/acctd`' -r
complete -c acctd -n "__fish_acctd_using_subcommand report" -l user -d 'The user of the database' -r
complete -c acctd -n "__fish_acctd_using_subcommand report" -l password-file -d 'The file with the user\'s password; without it, there is none. Read again for each request' -r -F
complete -c acctd -n "__fish_acctd_using_subcommand report" -l ca-file -d 'The certificates (PEM) of those who may have signed the server\'s; default: the system\'s' -r -F
complete -c acctd -n "__fish_acctd_using_subcommand report" -l setting -d 'A setting of ClickHouse for each request: `insert_quorum=2`' -r
complete -c acctd -n "__fish_acctd_using_subcommand report" -l month -d 'A calendar month: 2026-11' -r
complete -c acctd -n "__fish_acctd_using_subcommand report" -l from -d 'From this day or time on; default: from the first file on' -r
complete -c acctd -n "__fish_acctd_using_subcommand report" -l to -d 'Until this day or time, which is not included; default: until the end of the last file' -r
complete -c acctd -n "__fish_acctd_using_subcommand report" -l zone -d 'The zone whose days and months are meant, and in which names of files are that no line of intervals.jsonl describes; default: the machine\'s' -r
complete -c acctd -n "__fish_acctd_using_subcommand report" -l by -d 'Divide the period into parts, each with its own totals and percentiles' -r -f -a "month\t'A calendar month'
week\t'From Monday to Sunday'
day\t'A calendar day'
hour\t'An hour'
interval\t'A sample'"
complete -c acctd -n "__fish_acctd_using_subcommand report" -l group-by -d 'What has a line; default: prefixes, with --customers customers' -r -f -a "prefix\t'As acctd counts them'
customer\t'Those of --customers'
host\t'A directory'"
complete -c acctd -n "__fish_acctd_using_subcommand report" -l customers -d 'A CSV file of who has which prefix' -r -F
complete -c acctd -n "__fish_acctd_using_subcommand report" -l percentile -d 'The percentile of the samples: they are sorted, the largest 5 % (for 95) dropped, rounded down, and the largest that is left taken. Of 8,640 samples, the 433rd largest' -r
complete -c acctd -n "__fish_acctd_using_subcommand report" -l form -d 'What the percentile is taken of' -r -f -a "in\t'What was sent to them'
out\t'What they sent'
max\t'The larger of both percentiles'
sum\t'Both together in each sample'
sample-max\t'The larger of both in each sample'"
complete -c acctd -n "__fish_acctd_using_subcommand report" -l sample -d 'The length of a sample, a multiple of the files\' interval; default: 5m, or the interval if that is longer' -r
complete -c acctd -n "__fish_acctd_using_subcommand report" -l missing -d 'What samples are whose files are missing, or in which acctd was not running' -r -f -a "bound\t'They may have had anything: figures have bounds'
zero\t'They had nothing'
skip\t'They do not count: the percentile is one of the others'"
complete -c acctd -n "__fish_acctd_using_subcommand report" -l top -d 'The lines with the most; the others are one line' -r
complete -c acctd -n "__fish_acctd_using_subcommand report" -l sort -d 'The order of the lines, the largest first' -r -f -a "bytes\t'In and out together'
in\t'What was sent to them'
out\t'What they sent'
percentile\t'The percentile, or what it has at least'
name\t'The name, or the address'"
complete -c acctd -n "__fish_acctd_using_subcommand report" -l format -d 'The form of the output' -r -f -a "table\t'For people'
csv\t'A line for each part and line, exact numbers'
json\t'Everything, exact numbers'
md\t'A table of Markdown'
html\t'A page with plots, to be printed or sent. It has all that it needs, and no scripts'"
complete -c acctd -n "__fish_acctd_using_subcommand report" -l title -d 'The title of the page (--format html)' -r
complete -c acctd -n "__fish_acctd_using_subcommand report" -l last-month -d 'The calendar month before this one'
complete -c acctd -n "__fish_acctd_using_subcommand report" -l nested -d 'Where prefixes of two customers overlap, the longer one has the address; without this flag it is an error'
complete -c acctd -n "__fish_acctd_using_subcommand report" -l iec -d 'Units of 1,024 (GiB), instead of 1,000 (GB)'
complete -c acctd -n "__fish_acctd_using_subcommand report" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c acctd -n "__fish_acctd_using_subcommand archive" -l keep -d 'Delete CSV files that are archived and older than this: 90d, 36h; default: none is deleted' -r
complete -c acctd -n "__fish_acctd_using_subcommand archive" -l zone -d 'The zone in which names of files are that no line of intervals.jsonl describes; default: the machine\'s' -r
complete -c acctd -n "__fish_acctd_using_subcommand archive" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l to -d 'The HTTP interface of the server, and the database: `https://db.example.net:8443/acctd`' -r
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l endpoint -d 'The server of `s3://`: `https://s3.example.net`; default: Amazon\'s' -r
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l region -d 'The region of `s3://`' -r
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l user -d 'The user of the database' -r
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l password-file -d 'The file with the user\'s password; without it, there is none. Read again for each request' -r -F
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l ca-file -d 'The certificates (PEM) of those who may have signed the server\'s; default: the system\'s' -r -F
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l setting -d 'A setting of ClickHouse for each request: `insert_quorum=2`' -r
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l host -d 'The name of this host in the database; default: that of the machine' -r
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l compression -d 'How rows are compressed on the way' -r -f -a "zstd\t'Needs a ClickHouse of 2019 or later'
gzip\t'For any'
none\t'Not at all'"
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l in-flight -d 'The most batches that are on the way at once' -r
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l reconcile -d 'How often to compare all files with the database; 0 is never' -r
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l zone -d 'The zone in which names of files are that no line of intervals.jsonl describes; default: the machine\'s' -r
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l listen -d 'Answer /metrics and /healthz here: 127.0.0.1:9746, or unix:PATH' -r
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l cluster -d 'With --schema: tables for a cluster of this name, sharded by host, each shard with replicas' -r
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l keep -d 'ClickHouse deletes rows older than this (400d); sums of hours, days and months stay' -r
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l once -d 'Send what there is, and end. Exit code 1 if a file was not sent'
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l verify -d 'Compare all files with the database, and print how many are the same. Exit code 1 if one is not'
complete -c acctd -n "__fish_acctd_using_subcommand ship" -l schema -d 'Print the statements that make the tables, or bring them to this version. They may be run again'
complete -c acctd -n "__fish_acctd_using_subcommand ship" -s h -l help -d 'Print help (see more with \'--help\')'
