# Runs in new mount, PID, IPC, UTS, cgroup and network namespaces; makes a root that throws away what is written
# to it, and becomes systemd in there. Arguments: a work directory, then READ-ONLY-SOURCE TARGET pairs.
set -eu
work=$1
shift
mount --make-rprivate /
mount -t tmpfs -o mode=0755,size=2g box "$work"
mkdir "$work/upper" "$work/work" "$work/root"
root=$work/root
mount -t overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" overlay "$root"
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp"

# The box must not turn the host's knobs; those of its own network namespace it may.
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,ro,nosuid,nodev,noexec "$root/proc/sys"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"

mount -t tmpfs -o mode=0755,nosuid box "$root/dev"
for node in null zero full random urandom tty fuse; do
    [ -e "/dev/$node" ] || continue
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5,nosuid,noexec devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev box "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"

# Without a mode a tmpfs is 1777, and nobody should trust a /run like that.
mount -t tmpfs -o mode=0755,nosuid,nodev box "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev box "$root/tmp"
mkdir -p "$root/run/lock" "$root/run/systemd/system"
while [ $# -gt 1 ]; do
    mkdir -p "$root$2"
    mount --rbind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2"
    shift 2
done

# What the host runs, or what needs its hardware, has no business here.
for unit in systemd-logind.service systemd-timesyncd.service systemd-resolved.service systemd-networkd.service \
    systemd-binfmt.service systemd-modules-load.service systemd-sysctl.service systemd-repart.service \
    systemd-firstboot.service systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-udevd.service \
    systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service \
    systemd-random-seed.service systemd-machine-id-commit.service systemd-remount-fs.service \
    systemd-update-utmp.service systemd-hwdb-update.service kmod-static-nodes.service \
    proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount tmp.mount \
    systemd-ask-password-console.path systemd-ask-password-wall.path getty.target console-getty.service \
    getty-static.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    fstrim.timer man-db.timer logrotate.timer systemd-tmpfiles-clean.timer; do
    ln -s /dev/null "$root/run/systemd/system/$unit"
done
: >"$root/etc/fstab"
rm -rf "$root"/var/log/journal
mkdir "$root/run/systemd/journald.conf.d" "$root/run/systemd/system.conf.d"
cat >"$root/run/systemd/journald.conf.d/box.conf" <<END
[Journal]
Storage=volatile
RuntimeMaxUse=32M
RateLimitIntervalSec=0
ReadKMsg=no
Audit=no
END
cat >"$root/run/systemd/system.conf.d/box.conf" <<END
[Manager]
DefaultTimeoutStartSec=30s
DefaultTimeoutStopSec=5s
StatusUnitFormat=name
END

cd "$root"
mkdir run/.host
pivot_root . run/.host
umount -l /run/.host
rmdir /run/.host
# With container= set systemd does not do this itself, and what its helper mounts for LoadCredential= then never
# arrives in the unit: an empty directory.
mount --make-rshared /
exec chroot . /usr/bin/env -i container=box PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-syslog,-wake_alarm,-mac_admin,-mac_override,-audit_control \
    /lib/systemd/systemd --unit=basic.target --log-target=console --log-level=info --show-status=0
