// SPDX-License-Identifier: GPL-2.0-or-later
// hook-attach OBJECT PRIORITY: attaches the program `count` to the hook prerouting of IPv4 until it is killed. Debian 12's
// bpftool and libbpf do not know this type of program yet, so the numbers are those of linux/bpf.h.

#include <bpf/libbpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINK_CREATE 28
#define TYPE_NETFILTER 32
#define ATTACH_NETFILTER 45
#define PROTOCOL_IPV4 2
#define HOOK_PREROUTING 0

// The part `link_create` of union bpf_attr.
struct link_create {
    __u32 program, target, attach_type, flags;
    __u32 protocol, hook;
    __s32 priority;
    __u32 netfilter_flags;
};

int main(int count, char **words)
{
    if (count != 3)
        return 2;
    struct bpf_object *object = bpf_object__open_file(words[1], NULL);
    if (!object)
        return perror("open"), 1;
    struct bpf_program *program = bpf_object__find_program_by_name(object, "count");
    if (!program)
        return perror("find"), 1;
    bpf_program__set_type(program, TYPE_NETFILTER);
    bpf_program__set_expected_attach_type(program, ATTACH_NETFILTER);
    if (bpf_object__load(object))
        return perror("load"), 1;
    struct link_create link = {
        .program = bpf_program__fd(program),
        .attach_type = ATTACH_NETFILTER,
        .protocol = PROTOCOL_IPV4,
        .hook = HOOK_PREROUTING,
        .priority = atoi(words[2]),
    };
    if (syscall(SYS_bpf, LINK_CREATE, &link, sizeof(link)) < 0)
        return perror("attach"), 1;
    fprintf(stderr, "attached\n");
    return pause();
}
