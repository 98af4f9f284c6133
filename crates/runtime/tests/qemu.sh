#!/bin/bash
# Runs root_runtime on a Debian kernel with cgroup v2 only, in qemu (no KVM needed).
#   qemu.sh TEST_BINARY KERNEL_PACKAGE [FILTER]
#   qemu.sh target/debug/deps/root_runtime-… linux-image-6.1.0-50-cloud-amd64-unsigned isolation
# Needs qemu-system-x86, busybox-static, cpio. Prints `VM-DONE 0` at the end when all cases passed.
set -euo pipefail
test=$(realpath "$1") package=$2 filter=${3:-}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
apt-get download -q "$package" >/dev/null 2>&1
dpkg -x ./*.deb kernel
mkdir -p fs/{bin,usr/bin,lib64,lib/x86_64-linux-gnu,proc,sys,dev,tmp,etc,mod,new}
cp /usr/bin/busybox fs/bin/; cp /usr/bin/busybox fs/usr/bin/; ln -s busybox fs/bin/sh
cp "$test" fs/test; strip fs/test
for lib in $(ldd "$test" | grep -o '/[^ ]*'); do cp -L "$lib" "fs$lib"; done
module=$(find kernel -name 'overlay.ko*' | head -1)
case $module in *.xz) xz -dc "$module" > fs/mod/overlay.ko ;; *) cp "$module" fs/mod/overlay.ko ;; esac
# pivot_root does not work from an initramfs: move to a tmpfs first.
cat > fs/init <<'I'
#!/bin/sh
/bin/busybox mount -t tmpfs -o size=600m t /new
/bin/busybox cp -a /bin /usr /lib /lib64 /etc /mod /test /second /new/
/bin/busybox mkdir -p /new/proc /new/sys /new/dev /new/tmp
exec /bin/busybox switch_root /new /second
I
cat > fs/second <<I
#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev; mkdir -p /dev/pts /dev/shm
mount -t devpts d /dev/pts; mount -t tmpfs t /dev/shm; mount -t tmpfs t /tmp; mount -t cgroup2 c /sys/fs/cgroup
insmod /mod/overlay.ko; ifconfig lo up; uname -r
/test $filter
echo VM-DONE \$?
poweroff -f
I
chmod +x fs/init fs/second
(cd fs && find . | cpio -o -H newc 2>/dev/null | gzip -1) > initrd.gz
timeout 600 qemu-system-x86_64 -m 2048 -smp 2 -nographic -no-reboot -nic none -kernel kernel/boot/vmlinuz-* \
    -initrd initrd.gz -append "console=ttyS0 quiet panic=-1" | tr -d '\r'
