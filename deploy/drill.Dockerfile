# The broker's image with PostgreSQL's programs, for `broker drill`. `make drill-image` builds it;
# docs/how-to/deploy-kubernetes.md#backup-drill has its arguments.

ARG BROKER
FROM ${BROKER}

# The major version of the server that the backups are of.
ARG POSTGRES=18
# The locale of its databases. PostgreSQL's own image has this one.
ARG LOCALE=en_US
# The user that owns the backups. PostgreSQL's own image has this one.
ARG OWNER=999

USER root
# From PostgreSQL's own package repository if Debian has another version. No cluster is created.
RUN test -x "/usr/lib/postgresql/${POSTGRES}/bin/postgres" || { \
        apt-get update -qq \
        && apt-get install -y -qq --no-install-recommends ca-certificates locales postgresql-common >/dev/null \
        && echo "create_main_cluster = false" >> /etc/postgresql-common/createcluster.conf \
        && { apt-cache show "postgresql-${POSTGRES}" >/dev/null 2>&1 \
            || /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y >/dev/null; } \
        && apt-get install -y -qq --no-install-recommends "postgresql-${POSTGRES}" >/dev/null \
        && rm -rf /var/lib/apt/lists/*; \
    }
# PostgreSQL starts no database whose locale is missing, and initdb requires a user with a name.
RUN localedef --inputfile="${LOCALE}" --charmap=UTF-8 "${LOCALE}.UTF-8" \
    && { getent passwd "${OWNER}" >/dev/null \
        || echo "drill:x:${OWNER}:${OWNER}::/:/usr/sbin/nologin" >> /etc/passwd; }

ENV PATH="/usr/lib/postgresql/${POSTGRES}/bin:${PATH}"
USER ${OWNER}:${OWNER}
HEALTHCHECK NONE
CMD ["drill", "--backups", "/backups"]
