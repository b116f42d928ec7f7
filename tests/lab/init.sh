#!/bin/busybox sh
# The first process of a virtual machine of the lab. The host's file system is its
# root, with a layer in memory above it: nothing written there outlives the machine
# or reaches the host. Runs the script that the kernel's command line names with
# `lab.script=`; what that writes to descriptor 3 goes to the host unbuffered, its
# exit status as a last line `exit N`.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
for module in /modules/*; do
    # A frame is told as sent when it left, as controllers do it, and not when it was queued.
    case $module in *-vcan.ko) how=echo=1 ;; *) how= ;; esac
    # Some are for other processors.
    /bin/busybox insmod "$module" $how 2>/dev/null || echo "lab: no ${module##*/}"
done

for port in /sys/class/virtio-ports/*; do
    [ "$(/bin/busybox cat "$port/name")" = told ] && exec 3> "/dev/${port##*/}"
done

end() {
    echo "exit $1" >&3
    echo o > /proc/sysrq-trigger
    while :; do /bin/busybox sleep 1; done
}

fail() {
    echo "lab: $1"
    end 125
}

/bin/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose host /host ||
    fail "the host's file system cannot be mounted"
/bin/busybox mount -t tmpfs -o size=50% ram /ram
/bin/busybox mkdir /ram/upper /ram/work
/bin/busybox mount -t overlay -o lowerdir=/host,upperdir=/ram/upper,workdir=/ram/work system /system ||
    fail "no layer above the host's file system"
for place in proc sys dev; do
    /bin/busybox mount -o bind "/$place" "/system/$place"
done
/bin/busybox mkdir -p /system/dev/pts /system/dev/shm
/bin/busybox mount -t devpts -o ptmxmode=666 none /system/dev/pts
# Whatever lies there on the host.
/bin/busybox mount -t tmpfs none /system/dev/shm
/bin/busybox mount -t tmpfs none /system/run

/bin/busybox ifconfig lo 127.0.0.1 up
if [ -e /sys/class/net/eth0 ]; then
    # The user network of QEMU: the host is 10.0.2.2.
    /bin/busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
    /bin/busybox route add default gw 10.0.2.2
fi

script=
for word in $(/bin/busybox cat /proc/cmdline); do
    case $word in lab.script=*) script=${word#lab.script=} ;; esac
done
[ -n "$script" ] || fail "no lab.script= on the kernel's command line"
echo up >&3
/bin/busybox chroot /system /bin/sh "$script"
end $?
