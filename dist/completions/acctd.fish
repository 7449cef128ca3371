# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_acctd_global_optspecs
    string join \n ip4-src-group= ip4-dst-group= ip6-src-group= ip6-dst-group= ip4-prefix-length= ip6-prefix-length= max-prefixes= interval= log-directory= checkpoint= backlog= utc= crosscheck= crosscheck-attach= crosscheck-max-prefixes= crosscheck-object= crosscheck-pin= syslog= verbose= debug= listen= cpus= priority= user= cpuprofile= h/help V/version
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
complete -c acctd -n "__fish_acctd_needs_command" -l ip4-prefix-length -d 'Prefix length to account IPv4 addresses to, 0 to 32' -r
complete -c acctd -n "__fish_acctd_needs_command" -l ip6-prefix-length -d 'Prefix length to account IPv6 addresses to, 0 to 128' -r
complete -c acctd -n "__fish_acctd_needs_command" -l max-prefixes -d 'The most prefixes that a group\'s ledger holds in an interval' -r
complete -c acctd -n "__fish_acctd_needs_command" -l interval -d 'Length of the period that one file covers: at least 1s, dividing a day, or whole days' -r
complete -c acctd -n "__fish_acctd_needs_command" -l log-directory -d 'Directory for the files; made with its parents if need be' -r -F
complete -c acctd -n "__fish_acctd_needs_command" -l checkpoint -d 'How often to save what is counted so far, against a crash or a power cut; 0 is never' -r
complete -c acctd -n "__fish_acctd_needs_command" -l backlog -d 'The most rows that wait in memory while the disk takes none' -r
complete -c acctd -n "__fish_acctd_needs_command" -l utc -d 'File names and the Time column in UTC instead of local time' -r
complete -c acctd -n "__fish_acctd_needs_command" -l crosscheck -d 'Interfaces whose packets a TC program counts as well; each row gets both counts and a verdict' -r
complete -c acctd -n "__fish_acctd_needs_command" -l crosscheck-attach -d 'How the TC programs are attached' -r -f -a "auto\t'TCX where the kernel has it, else clsact'
tcx\t'TCX links (Linux 6.6), in front of all others; they go with the process'
clsact\t'Filters of the clsact qdisc'"
complete -c acctd -n "__fish_acctd_needs_command" -l crosscheck-max-prefixes -d 'The most prefixes that the kernel\'s map of an interval holds, each side counted by itself' -r
complete -c acctd -n "__fish_acctd_needs_command" -l crosscheck-object -d 'An eBPF object of one\'s own instead of acctd\'s, which keeps the map contract' -r -F
complete -c acctd -n "__fish_acctd_needs_command" -l crosscheck-pin -d 'Pin the cross-check\'s maps in this directory of bpffs, for bpftool' -r -F
complete -c acctd -n "__fish_acctd_needs_command" -l syslog -d 'Log to syslog instead of stderr' -r
complete -c acctd -n "__fish_acctd_needs_command" -l verbose -d 'Log more' -r
complete -c acctd -n "__fish_acctd_needs_command" -l debug -d 'Log each packet; implies --verbose' -r
complete -c acctd -n "__fish_acctd_needs_command" -l listen -d 'Where to answer over HTTP: `/metrics` for Prometheus, `/healthz`, `/status`' -r
complete -c acctd -n "__fish_acctd_needs_command" -l cpus -d 'CPUs to use; 0 is all' -r
complete -c acctd -n "__fish_acctd_needs_command" -l priority -d 'Nice value of the process, -20 (first) to 19 (last)' -r
complete -c acctd -n "__fish_acctd_needs_command" -l user -d 'Become this user after the start, for which it takes root' -r
complete -c acctd -n "__fish_acctd_needs_command" -l cpuprofile -d 'Write a CPU profile for pprof, from start to stop' -r -F
complete -c acctd -n "__fish_acctd_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c acctd -n "__fish_acctd_needs_command" -s V -l version -d 'Print version'
complete -c acctd -n "__fish_acctd_needs_command" -f -a "rules" -d 'Print the nftables or iptables rules that fit the flags given, load, remove or check them'
complete -c acctd -n "__fish_acctd_needs_command" -f -a "doctor" -d 'Look for what would keep packets from being counted, each finding with its cure'
complete -c acctd -n "__fish_acctd_needs_command" -f -a "status" -d 'Say what a running acctd is doing'
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l lan -d 'Interfaces behind which the accounted addresses are; ports, for a bridge' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l egress-hook -d 'Log what goes out on the netdev egress hook of these interfaces, where packets carry a time stamp' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l fan-out -d 'Spread each direction over this many groups, by CPU: the one given and those behind it' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l snaplen -d 'Bytes to copy of each packet; without it, the IP header and no more' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l threshold -d 'Packets that the kernel collects before it hands them over' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l format -d 'What to write them for' -r -f -a "nft\t'A table of its own for nft'
iptables\t'Chains of their own for iptables and ip6tables, in the table mangle'"
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l ip4-src-group -d 'NFLOG groups of IPv4 packets whose source address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l ip4-dst-group -d 'NFLOG groups of IPv4 packets whose destination address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l ip6-src-group -d 'NFLOG groups of IPv6 packets whose source address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l ip6-dst-group -d 'NFLOG groups of IPv6 packets whose destination address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l forwarded -d 'Only what passes from one interface to another, not what the router itself receives or sends'
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l apply -d 'Load them, in the place of those that were loaded before, be it for the other program'
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l remove -d 'Take away those that were loaded before'
complete -c acctd -n "__fish_acctd_using_subcommand rules" -l check -d 'Say how what is loaded differs from them; exit code 1 if it does'
complete -c acctd -n "__fish_acctd_using_subcommand rules" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l live -d 'Measure for so long instead of judging alone: what passes the interfaces, meets the rules, and is logged' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l ip4-src-group -d 'NFLOG groups of IPv4 packets whose source address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l ip4-dst-group -d 'NFLOG groups of IPv4 packets whose destination address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l ip6-src-group -d 'NFLOG groups of IPv6 packets whose source address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l ip6-dst-group -d 'NFLOG groups of IPv6 packets whose destination address is accounted' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l ip4-prefix-length -d 'Prefix length to account IPv4 addresses to, 0 to 32' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l ip6-prefix-length -d 'Prefix length to account IPv6 addresses to, 0 to 128' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l max-prefixes -d 'The most prefixes that a group\'s ledger holds in an interval' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l interval -d 'Length of the period that one file covers: at least 1s, dividing a day, or whole days' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l log-directory -d 'Directory for the files; made with its parents if need be' -r -F
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l checkpoint -d 'How often to save what is counted so far, against a crash or a power cut; 0 is never' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l backlog -d 'The most rows that wait in memory while the disk takes none' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l utc -d 'File names and the Time column in UTC instead of local time' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l crosscheck -d 'Interfaces whose packets a TC program counts as well; each row gets both counts and a verdict' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l crosscheck-attach -d 'How the TC programs are attached' -r -f -a "auto\t'TCX where the kernel has it, else clsact'
tcx\t'TCX links (Linux 6.6), in front of all others; they go with the process'
clsact\t'Filters of the clsact qdisc'"
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l crosscheck-max-prefixes -d 'The most prefixes that the kernel\'s map of an interval holds, each side counted by itself' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l crosscheck-object -d 'An eBPF object of one\'s own instead of acctd\'s, which keeps the map contract' -r -F
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l crosscheck-pin -d 'Pin the cross-check\'s maps in this directory of bpffs, for bpftool' -r -F
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l syslog -d 'Log to syslog instead of stderr' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l verbose -d 'Log more' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l debug -d 'Log each packet; implies --verbose' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l listen -d 'Where to answer over HTTP: `/metrics` for Prometheus, `/healthz`, `/status`' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l cpus -d 'CPUs to use; 0 is all' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l priority -d 'Nice value of the process, -20 (first) to 19 (last)' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l user -d 'Become this user after the start, for which it takes root' -r
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l cpuprofile -d 'Write a CPU profile for pprof, from start to stop' -r -F
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -l json -d 'As JSON: a list of what is found, with the severity, an id, what it is and the cure'
complete -c acctd -n "__fish_acctd_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c acctd -n "__fish_acctd_using_subcommand status" -l listen -d 'Where acctd listens, as it was given to it with --listen; of several the first counts' -r
complete -c acctd -n "__fish_acctd_using_subcommand status" -l json -d 'As JSON, as acctd gives it'
complete -c acctd -n "__fish_acctd_using_subcommand status" -s h -l help -d 'Print help'
