// SPDX-License-Identifier: GPL-2.0-or-later
// Counts IPv4 packets by protocol where netfilter's rules run; see own-counting-point.md.

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

// linux/netfilter.h: NF_ACCEPT, so that the rules see the packet.
#define PASS_ON 1

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 256);
    __type(key, __u32);
    __type(value, __u64);
} reached SEC(".maps");

SEC("netfilter")
int count(struct bpf_nf_ctx *ctx)
{
    struct sk_buff *skb = ctx->skb;
    struct iphdr ip;

    if (bpf_probe_read_kernel(&ip, sizeof(ip), skb->head + skb->network_header))
        return PASS_ON;
    __u32 protocol = ip.protocol;
    __u64 *packets = bpf_map_lookup_elem(&reached, &protocol);
    if (packets)
        __sync_fetch_and_add(packets, 1);
    return PASS_ON;
}

char LICENSE[] SEC("license") = "GPL";
