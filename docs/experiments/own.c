// SPDX-License-Identifier: GPL-2.0-or-later
// Counts IPv4 packets by their source address, in the oldest open epoch; see own-program-in-c.md. The layouts are those
// of acctd-common/src/contract.rs.

#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SLOTS 8
#define CLOCK_OLDEST SLOTS
#define ETHERNET 14
// linux/tc_act/tc_act.h: TC_ACT_UNSPEC, so that other programs on the hook still run.
#define PASS_ON -1

struct epoch_key {
    __u8 version;
    __u8 side;
    __u8 reason;
    __u8 padding;
    __u8 address[16];
};

struct counters {
    __u64 bytes;
    __u64 packets;
};

struct epoch_value {
    struct counters total;
    struct counters near_end;
    struct counters before_end;
    struct counters fragments;
};

// Only a template: acctd makes the maps.
struct epoch {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 1);
    __type(key, struct epoch_key);
    __type(value, struct epoch_value);
};

// clang writes a type into BTF as a whole only if there is something of it.
const volatile struct epoch_key key_type;
const volatile struct epoch_value value_type;

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, SLOTS);
    __type(key, __u32);
    __array(values, struct epoch);
} ACCTD_EPOCHS SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, SLOTS + 2);
    __type(key, __u32);
    __type(value, __u64);
} ACCTD_CLOCK SEC(".maps");

SEC("classifier")
int acctd_ingress_source(struct __sk_buff *skb)
{
    __u32 oldest = CLOCK_OLDEST;
    struct epoch_value one = {.total.packets = 1};
    struct epoch_key key = {.version = 4};
    struct epoch_value *counted;
    struct iphdr ip;
    __u64 *slot;
    void *epoch;
    __u32 index;

    if (bpf_skb_load_bytes(skb, ETHERNET, &ip, sizeof(ip)) || ip.version != 4)
        return PASS_ON;
    slot = bpf_map_lookup_elem(&ACCTD_CLOCK, &oldest);
    if (!slot)
        return PASS_ON;
    index = *slot;
    epoch = bpf_map_lookup_elem(&ACCTD_EPOCHS, &index);
    if (!epoch)
        return PASS_ON;
    __builtin_memcpy(key.address, &ip.saddr, sizeof(ip.saddr));
    one.total.bytes = bpf_ntohs(ip.tot_len);
    if (bpf_map_update_elem(epoch, &key, &one, BPF_NOEXIST)) {
        counted = bpf_map_lookup_elem(epoch, &key);
        if (counted) {
            __sync_fetch_and_add(&counted->total.bytes, one.total.bytes);
            __sync_fetch_and_add(&counted->total.packets, 1);
        }
    }
    return PASS_ON;
}

// This program accounts ingress alone.
SEC("classifier")
int acctd_egress_dest(struct __sk_buff *skb)
{
    return PASS_ON;
}

char LICENSE[] SEC("license") = "GPL";
