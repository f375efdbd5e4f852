#!/bin/bash
# backup base: a base backup now and then, into /backups/base/<time>/, and what is too old removed.
# backup wal:  the write-ahead log as it is written, into /backups/wal/.
set -euo pipefail

PGPASSWORD=$(cat /run/secrets/backup_password)
export PGPASSWORD
mkdir -p /backups/base /backups/wal

remove_old() {
    local kept oldest
    mapfile -t kept < <(find /backups/base -mindepth 1 -maxdepth 1 -name '2*Z' | sort -r)
    for old in "${kept[@]:$BACKUPS_KEPT}"; do
        rm -r "$old"
        echo "removed $old"
    done
    # What the oldest backup needs begins with this segment.
    oldest=$(find /backups/base -mindepth 1 -maxdepth 1 -name '2*Z' | sort | head -n 1)
    pg_archivecleanup /backups/wal \
        "$(sed -n 's/^START WAL LOCATION: .* (file \([0-9A-F]*\))$/\1/p' "$oldest/backup_label")"
}

case $1 in
    base)
        rm -rf /backups/base/unfinished
        while true; do
            name=$(date -u +%Y%m%dT%H%M%SZ)
            pg_basebackup --pgdata=/backups/base/unfinished --wal-method=stream --checkpoint=fast
            pg_verifybackup --quiet /backups/base/unfinished
            mv /backups/base/unfinished "/backups/base/$name"
            echo "backed up to /backups/base/$name"
            remove_old
            sleep "$BACKUP_EVERY_SECONDS"
        done
        ;;
    wal)
        pg_receivewal --directory=/backups/wal --slot=backup --create-slot --if-not-exists
        exec pg_receivewal --directory=/backups/wal --slot=backup --synchronous
        ;;
    *)
        echo "usage: backup base|wal" >&2
        exit 2
        ;;
esac
