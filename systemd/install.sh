#!/bin/sh
# Installs the built daemon on this box. Run by `make install`; needs root.
set -eu
cd "$(dirname "$0")/.."
install -D -m 0755 target/release/baygate /usr/bin/baygate
install -D -m 0644 systemd/baygate.service /etc/systemd/system/baygate.service
install -D -m 0644 systemd/baygate-can.socket /etc/systemd/system/baygate-can.socket
install -D -m 0644 systemd/baygate-can@.service /etc/systemd/system/baygate-can@.service
install -D -m 0644 systemd/60-baygate.rules /etc/udev/rules.d/60-baygate.rules
install -D -m 0644 systemd/60-baygate.polkit.rules /etc/polkit-1/rules.d/60-baygate.rules
install -D -m 0644 systemd/baygate.sysusers /usr/lib/sysusers.d/baygate.conf
install -D -m 0644 systemd/baygate.tmpfiles /usr/lib/tmpfiles.d/baygate.conf
install -D -m 0644 systemd/baygate.modprobe /etc/modprobe.d/baygate.conf
systemd-sysusers baygate.conf
systemd-tmpfiles --create baygate.conf
mkdir -p /usr/share/baygate
cp -r firmware-protocols config/rules config/templates config/fonts /usr/share/baygate/
[ -e /etc/baygate/baygate.toml ] || install -m 0644 config/baygate.toml /etc/baygate/baygate.toml
# No file in /tmp on the way: others could have put a link there.
/usr/bin/baygate man | install -D -m 0644 /dev/stdin /usr/share/man/man1/baygate.1
# The blacklist holds from the next start on; until then the drivers may already be there.
modprobe -r pn533_usb pn533 nfc 2>/dev/null || true
systemctl daemon-reload
# The rules apply to what is plugged in already, too; a kernel driver that holds a reader lets go.
udevadm control --reload 2>/dev/null || true
udevadm trigger --subsystem-match=tty --subsystem-match=usbmisc --subsystem-match=usb 2>/dev/null || true
modprobe -r pn533_usb 2>/dev/null || true
echo "Edit /etc/baygate/baygate.toml (baygate devices prints lines for it), then:"
echo "  baygate check && sudo systemctl enable --now baygate"
echo "CAN links with bitrate= also need: sudo systemctl enable --now baygate-can.socket"
echo "Card readers of kind pcsc also need: sudo apt-get install pcscd"
echo "To use pair, token, scan ID and print without sudo: sudo adduser \$USER baygate-admin"
