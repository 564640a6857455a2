#!/bin/sh
# Build the image without Docker and without a registry: a Debian base by mmdebstrap, the Dockerfile by buildah.
# `hack/manifests/image.sh [ARCHIVE]`, as root. The image ends up in buildah's storage, and in ARCHIVE if named
# (as `docker save` writes it). The base is made once; `buildah rmi svcmesh-base:trixie-slim` has it made anew.
set -eu
cd "$(dirname "$0")/../.."
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# program=Debian package
missing=""
for entry in mmdebstrap=mmdebstrap buildah=buildah crun=crun; do
  command -v "${entry%%=*}" >/dev/null || missing="$missing ${entry##*=}"
done
if [ "$(id -u)" != 0 ]; then
  echo "Left out: the container image (building it without Docker needs root)"
  exit 1
elif [ -n "$missing" ]; then
  command -v apt-get >/dev/null || { echo "Left out: the container image (needs$missing)"; exit 1; }
  echo "Installing$missing"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing; } >/dev/null
fi

# Behind a proxy with a certificate of its own, pip has to know it.
printf '[global]\ncert = /run/ca.crt\n' > "$work/pip.conf"

# As Debian makes its own `slim` images, without manuals and translations; and without what mmdebstrap copies from
# this machine (names and name servers).
base=localhost/svcmesh-base:trixie-slim
if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  mmdebstrap --quiet --variant=minbase \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/groff/*' --dpkgopt='path-exclude=/usr/share/lintian/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='rm -f "$1/etc/resolv.conf" "$1/etc/hostname"' \
    trixie "$work/base.tar"
  container="$(buildah from scratch)"
  buildah add --quiet "$container" "$work/base.tar" /
  buildah commit --quiet --rm "$container" "$base"
fi
buildah bud --quiet --layers --isolation chroot --network host \
  --secret "id=pip.conf,src=$work/pip.conf" --secret id=ca.crt,src=/etc/ssl/certs/ca-certificates.crt \
  --build-arg "BASE=$base" --tag "svcmesh-agent:$version" .
# buildah leaves empty files behind where it mounted this machine's.
container="$(buildah from --pull-never "localhost/svcmesh-agent:$version")"
root="$(buildah mount "$container")"
rm -f "$root/etc/hostname" "$root/etc/hosts" "$root/etc/resolv.conf"
buildah umount "$container" >/dev/null
buildah commit --quiet --rm "$container" "svcmesh-agent:$version"
if [ -n "${1:-}" ]; then
  mkdir -p "$(dirname "$1")"
  rm -f "$1"
  buildah push --quiet "localhost/svcmesh-agent:$version" "docker-archive:$1:docker.io/library/svcmesh-agent:$version"
  echo "$1: svcmesh-agent:$version, $(du -h "$1" | cut -f1)"
fi
