#!/usr/bin/env bash
# Makes what a virtual machine of the lab boots: Debian's kernel and an initramfs
# with busybox, the modules named and what these need.
#   tests/lab/build.sh FOLDER MODULE...     → FOLDER/vmlinuz, FOLDER/initrd
# Needs no root: nothing is installed, the kernel's package is only unpacked.
set -euo pipefail
folder=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
PATH=$PATH:/usr/sbin:/sbin

# One that is there stays: a run needs no network then.
kernel=$(cat "$folder/kernel" 2>/dev/null || true)
if [ -z "$kernel" ]; then
    named() {
        apt-cache depends linux-image-amd64 2>/dev/null | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }'
    }
    fetch() {
        package=$(named) && [ -n "$package" ] && (cd "$folder" && apt-get download -qq "$package")
    }
    rm -f "$folder"/linux-image-*.deb
    # Lists that are old name a package that is gone.
    if ! fetch; then
        if [ "$(id -u)" = 0 ]; then apt-get update -qq; else sudo apt-get update -qq; fi
        fetch
    fi
    kernel=${package#linux-image-}
    rm -rf "${folder:?}/$kernel"
    dpkg -x "$folder"/linux-image-*.deb "$folder/$kernel"
    rm "$folder"/linux-image-*.deb
    # Newer packages have everything below /usr.
    [ -d "$folder/$kernel/lib/modules" ] || ln -s usr/lib "$folder/$kernel/lib"
    depmod -b "$folder/$kernel" "$kernel"
    echo "$kernel" > "$folder/kernel"
fi

# Built beside and moved: another run may be booting from it.
root=$(mktemp -d "$folder/root.XXXXXX")
trap 'rm -rf "$root" "$folder/initrd.$$"' EXIT
chmod 755 "$root"
mkdir -p "$root"/{bin,dev,host,modules,proc,ram,sys,system}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$here/init.sh" "$root/init"
chmod 755 "$root/init"
number=100
for module in "$@"; do
    modprobe -d "$folder/$kernel" -S "$kernel" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r file; do
    name=$((number++))-$(basename "$file")
    case $file in
        *.xz) xz -dc "$file" > "$root/modules/${name%.xz}" ;;
        *) cp "$file" "$root/modules/$name" ;;
    esac
done
(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) > "$folder/initrd.$$"
mv "$folder/initrd.$$" "$folder/initrd"
cp "$folder/$kernel/boot/vmlinuz-$kernel" "$folder/vmlinuz"
