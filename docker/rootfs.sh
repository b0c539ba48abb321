#!/bin/sh
# Unpacks Debian packages into a folder, without what no service reads: an image of its own that has no shell and no apt.
# usage: rootfs.sh FOLDER PACKAGE ...
set -eu
root=$1
shift
mkdir -p "$root/var/lib/dpkg/status.d" /tmp/debs
cd /tmp/debs
apt-get download "$@"
for deb in *.deb; do
  dpkg-deb -x "$deb" "$root"
  # Where scanners look up what an image without dpkg is made of.
  dpkg-deb -f "$deb" >"$root/var/lib/dpkg/status.d/${deb%%_*}"
done
cd "$root"
rm -rf /tmp/debs usr/share/man usr/share/info usr/share/locale usr/share/lintian usr/lib/*/gconv usr/lib/*/audit
find usr/share/doc -type f ! -name copyright -delete
find . -depth -type d -empty -delete
mkdir -m 1777 tmp
mkdir -p etc usr/bin
ln -s python3.11 usr/bin/python3
echo 'streamforge:x:10001:10001::/tmp:/usr/sbin/nologin' >etc/passwd
echo 'streamforge:x:10001:' >etc/group
# What is there when it starts need not be compiled each time; the file system may be read-only.
python3.11 -m compileall -q -j 0 -s "$root" "$root/usr/lib/python3.11"
