#!/bin/bash
# Boots the Debian in $1 with its own systemd, in namespaces of its own and the network namespace that this is
# started in. $2 is an empty directory and the name of a cgroup. Ends with its caller.
set -e
root=$1 cgroups=$2 cgroup=$(basename "$2")
mount -t cgroup2 cgroup2 "$cgroups"
mkdir -p "$cgroups/$cgroup"
echo 0 > "$cgroups/$cgroup/cgroup.procs"
exec unshare --cgroup bash -c '
set -e
root=$1 cgroups=$2
umount "$cgroups"
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm old
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
pivot_root . old
umount -l old
rmdir old
exec env -i container=acctd PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --log-target=journal --show-status=no
' boot "$root" "$cgroups"
