#!/bin/sh
# Build the image without Docker and without a registry: a Debian base by mmdebstrap, the Dockerfile by buildah.
# `hack/manifests/image.sh [ARCHIVE]`, as root. The image ends up in buildah's storage, and in ARCHIVE if named
# (as `docker save` writes it). The base is made once; `buildah rmi svcmesh-base:trixie` has it made anew.
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
printf '[global]\ncert = /run/host-ca.crt\n' > "$work/pip.conf"

if ! buildah inspect --type image localhost/svcmesh-base:trixie >/dev/null 2>&1; then
  mmdebstrap --quiet --variant=minbase trixie "$work/base.tar"
  base="$(buildah from scratch)"
  buildah add --quiet "$base" "$work/base.tar" /
  buildah commit --quiet --rm "$base" localhost/svcmesh-base:trixie
fi
buildah bud --quiet --layers --isolation chroot --network host \
  --volume "$work/pip.conf:/etc/pip.conf:ro" \
  --volume /etc/ssl/certs/ca-certificates.crt:/run/host-ca.crt:ro \
  --build-arg BASE=localhost/svcmesh-base:trixie --tag "svcmesh-agent:$version" .
if [ -n "${1:-}" ]; then
  mkdir -p "$(dirname "$1")"
  rm -f "$1"
  buildah push --quiet "localhost/svcmesh-agent:$version" "docker-archive:$1:docker.io/library/svcmesh-agent:$version"
  echo "$1: svcmesh-agent:$version, $(du -h "$1" | cut -f1)"
fi
