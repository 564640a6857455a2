#!/bin/sh
# Build the image without Docker and without a registry: a Debian base by mmdebstrap, the Dockerfile by buildah.
# Needs root, and the Debian packages mmdebstrap, buildah and crun. The image ends up in buildah's storage.
set -eu
cd "$(dirname "$0")/../.."
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# Behind a proxy with a certificate of its own, pip has to know it.
printf '[global]\ncert = /run/host-ca.crt\n' > "$work/pip.conf"

mmdebstrap --quiet --variant=minbase trixie "$work/base.tar"
base="$(buildah from scratch)"
buildah add --quiet "$base" "$work/base.tar" /
buildah commit --quiet --rm "$base" localhost/svcmesh-base:trixie
buildah bud --isolation chroot --network host \
  --volume "$work/pip.conf:/etc/pip.conf:ro" \
  --volume /etc/ssl/certs/ca-certificates.crt:/run/host-ca.crt:ro \
  --build-arg BASE=localhost/svcmesh-base:trixie --tag "svcmesh-agent:$version" .
