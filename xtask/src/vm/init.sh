#!/bin/sh
# The guest's first process: mounts what programs expect, runs /command, and says how it ended.
# Its three ports are files of the host: what the command prints, and the result.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /mnt /out /tmp
# As the scripts of Debian's packages, which are only unpacked, would leave it.
rmdir /var/run 2>/dev/null; ln -s /run /var/run
ln -s mawk /usr/bin/awk
# No file system of its own: the project may be below it.
chmod 1777 /tmp
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
ip link set lo up
hostname guest
# As where Docker runs: bridged packets pass the IP rules. And no udev makes the node of tun.
modprobe -a virtio_pci virtio_console br_netfilter tun 2>/dev/null

# The ports in the order of qemu's command line.
port() {
    for name in /sys/class/virtio-ports/*/name; do
        [ "$(cat "$name" 2>/dev/null)" = "$1" ] && basename "$(dirname "$name")"
    done
}
n_tries=0
until [ -n "$(port files)" ]; do
    n_tries=$((n_tries + 1))
    if [ "$n_tries" -gt 300 ]; then
        echo "no virtio port: does this kernel have CONFIG_VIRTIO_CONSOLE and its modules?"
        echo o > /proc/sysrq-trigger
        sleep 60
    fi
    sleep 0.1
done
exec 3> "/dev/$(port result)"
echo started >&3
sh /command < /dev/null > "/dev/$(port out)" 2> "/dev/$(port err)"
code=$?
tar -C /out -cf "/dev/$(port files)" .
echo "exit $code" >&3
exec 3>&-
sync
echo o > /proc/sysrq-trigger
sleep 60
