# The broker's image. `make image` builds it; docs/how-to/build-the-image.md explains its arguments.
# There is no "syntax" line: BuildKit would fetch that front end from a registry at every build.

# Both stages need one Python at one path. Renovate keeps the digest current.
ARG BASE=python:3.13-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b
ARG BUILD_BASE=${BASE}

FROM ${BUILD_BASE} AS build

# Seconds since 1970: the time stamp of every file that this build creates.
ARG SOURCE_DATE_EPOCH=0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_REQUIRE_HASHES=1 \
    PIP_ONLY_BINARY=:all: \
    PYTHONHASHSEED=0

# `strip` removes the debugging symbols of the wheels' libraries. No compiler is installed.
RUN command -v strip >/dev/null || { \
        apt-get update -qq \
        && apt-get install -y -qq --no-install-recommends binutils >/dev/null; \
    }

WORKDIR /src
COPY requirements/base.txt requirements/build.txt requirements/
# A package mirror, if there is one: docker build --secret id=pip,src=pip.conf
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /tools \
    && /tools/bin/pip install --quiet --requirement requirements/build.txt \
    && python3 -m venv --without-pip /opt/broker \
    && /tools/bin/pip --python /opt/broker/bin/python install --quiet --no-compile \
        --requirement requirements/base.txt

COPY pyproject.toml README.md LICENSE ./
COPY broker broker
RUN export PIP_REQUIRE_HASHES=0 PIP_NO_INDEX=1 \
    && /tools/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /tools/bin/pip --python /opt/broker/bin/python install --quiet --no-compile --no-deps \
        /wheel/*.whl

# The root file system may be read-only, so the bytecode is compiled here. It does not depend on the
# sources' time stamps, which differ from build to build.
RUN cd /opt/broker \
    && rm -f bin/activate* bin/Activate* bin/normalizer bin/httpx* \
    && find lib -name direct_url.json -delete \
    && find lib -type d \( -name tests -o -name test -o -name _testbase \) -prune -exec rm -r {} + \
    && find lib -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.pyi' \
        -o -name '*.c' -o -name '*.h' \) -delete \
    && find lib -type f -name '*.so*' -exec strip --strip-unneeded {} + \
    && python3 -m compileall -q --invalidation-mode unchecked-hash lib \
    && mkdir -p /image/opt \
    && mv /opt/broker /image/opt/ \
    && find /image -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +


FROM ${BASE}

# Includes the parent folder, whose time stamp would otherwise be that of the build.
COPY --from=build /image/ /
ENV PATH="/opt/broker/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BROKER_PUBLIC_LISTEN=0.0.0.0:8000 \
    BROKER_INTERNAL_LISTEN=0.0.0.0:8001 \
    BROKER_OPS_LISTEN=0.0.0.0:8002

# A number: Kubernetes' runAsNonRoot cannot check a name.
USER 65532:65532
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["broker", "status"]
ENTRYPOINT ["broker"]
CMD ["serve"]

# Last, because they change with every build.
ARG BASE
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Token broker" \
      org.opencontainers.image.description="Owns the Google OAuth dance and hands short-lived access tokens to internal services" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE}"
