# The image of the agent, for amd64 and arm64: `docker build -t svcmesh-agent:0.1.0 .`
# docs/install.md says how it was built and tried where there is no Docker.
ARG BASE=docker.io/library/debian:trixie-slim

# pip and what describes the image stay in this stage.
FROM ${BASE} AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      python3 python3-dev python3-venv ca-certificates gcc libc6-dev
WORKDIR /src
COPY hack/locks/runtime.txt hack/locks/image.txt hack/locks/
# Wheels only, each with its hash: nothing unknown gets in. Who needs a pip.conf to get them
# (an index or a certificate of their own) gives it as the secret pip.conf, and the certificate as ca.crt.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.crt,target=/run/ca.crt \
    python3 -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r hack/locks/image.txt \
 && python3 -m venv --without-pip /opt/svcmesh \
 && /opt/build/bin/pip --python /opt/svcmesh/bin/python install --no-cache-dir --no-compile \
      --require-hashes --only-binary :all: -r hack/locks/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY nodeagent nodeagent
COPY discovery discovery
COPY middleware middleware
COPY hack/compile hack/compile
# Nothing in the image depends on when it was built: no time in the wheel, hashes and no times in compiled files.
# The data plane is compiled from the sources above (docs/performance.md has what it is worth).
RUN SOURCE_DATE_EPOCH=1577836800 /opt/build/bin/python -m hack.compile wheel /dist --python /opt/svcmesh/bin/python \
 && /opt/build/bin/pip --python /opt/svcmesh/bin/python install --no-cache-dir --no-compile --no-deps --no-index \
      /dist/*.whl \
 && python3 -m compileall -q -f --invalidation-mode unchecked-hash /opt/svcmesh
# Which Python packages are in the image. The Debian packages are in its /var/lib/dpkg/status, as in any of Debian's.
RUN /opt/build/bin/cyclonedx-py environment --output-reproducible --output-format JSON \
      --output-file /opt/svcmesh/sbom.cdx.json /opt/svcmesh/bin/python

FROM ${BASE}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      python3 nftables ca-certificates libcap2-bin \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/log/*
COPY --from=build /opt/svcmesh /opt/svcmesh
# The two programs that need NET_ADMIN have it as a file capability, because Kubernetes has no ambient ones. They
# are copies: everything else in the image, meshctl too, runs without. See docs/security.md.
RUN mkdir /opt/svcmesh/privileged \
 && cp --dereference /usr/bin/python3 /opt/svcmesh/bin/agent-python \
 && cp /usr/sbin/nft /opt/svcmesh/privileged/nft \
 && setcap cap_net_admin+ep /opt/svcmesh/bin/agent-python \
 && setcap cap_net_admin+ep /opt/svcmesh/privileged/nft
ENV PATH=/opt/svcmesh/privileged:/opt/svcmesh/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title="svcmesh-agent" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.description="The svc.mesh agent of one Kubernetes node"
USER 65532:65532
ENTRYPOINT ["/opt/svcmesh/bin/agent-python", "-m", "nodeagent"]
CMD ["run"]
