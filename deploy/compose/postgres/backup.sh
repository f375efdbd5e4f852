#!/bin/bash
# backup base        periodic base backups, into /backups/base/<time>/; removes those that are too old
# backup wal         the write-ahead log continuously, into /backups/wal/
# backup now         a base backup immediately
# backup new-slot    drop the log that PostgreSQL keeps for the backup, or has lost: then make a base backup
# backup check-base  the health checks of the first two
# backup check-wal
set -euo pipefail

PGPASSWORD=$(cat /run/secrets/backup_password)
export PGPASSWORD

segment_bytes=$((16 * 1024 * 1024))

# The names of all finished base backups, the oldest first.
bases() {
    find /backups/base -mindepth 1 -maxdepth 1 -name '2*Z' -printf '%f\n' 2>/dev/null | sort
}

# Age of a base backup in seconds, by its name: 20260131T020000Z.
age() {
    local began=${1:0:4}-${1:4:2}-${1:6:2}T${1:9:2}:${1:11:2}:${1:13:2}Z
    echo $(($(date +%s) - $(date --date="$began" +%s)))
}

seconds_until_due() {
    local newest
    newest=$(bases | tail -n 1)
    [ -n "$newest" ] || { echo 0; return; }
    echo $((BACKUP_EVERY_SECONDS - $(age "$newest")))
}

# Unfinished ones are in another folder: everything in base/ can be restored.
back_up() {
    local name
    name=$(date --utc +%Y%m%dT%H%M%SZ)
    mkdir -p /backups/base
    rm -rf /backups/unfinished
    pg_basebackup --pgdata=/backups/unfinished --wal-method=stream --checkpoint=fast
    pg_verifybackup --quiet /backups/unfinished
    sync -f /backups/unfinished
    mv /backups/unfinished "/backups/base/$name"
    echo "backed up to /backups/base/$name"
}

# The newest always stays.
remove_old() {
    local name
    for name in $(bases | head -n -1); do
        if [ "$(age "$name")" -gt $((BACKUP_KEEP_DAYS * 86400)) ]; then
            rm -r "/backups/base/$name"
            echo "removed /backups/base/$name"
        fi
    done
    # The oldest backup needs the log from this segment on.
    if [ -d /backups/wal ]; then
        pg_archivecleanup /backups/wal "$(sed -n \
            's/^START WAL LOCATION: .* (file \([0-9A-F]*\))$/\1/p' \
            "/backups/base/$(bases | head -n 1)/backup_label")"
    fi
}

# The segment that PostgreSQL writes to.
current_segment() {
    local timeline lsn position
    IFS='|' read -r _ timeline lsn _ < <(
        psql --no-psqlrc --quiet --tuples-only --no-align --dbname='replication=true' --command=IDENTIFY_SYSTEM
    )
    position=$(((16#${lsn%/*} << 32) + 16#${lsn#*/} - 1))
    printf '%08X%08X%08X\n' "$timeline" $((position >> 32)) $(((position & 0xFFFFFFFF) / segment_bytes))
}

case ${1:-} in
    base)
        while true; do
            wait=$(seconds_until_due)
            if [ "$wait" -gt 0 ]; then
                sleep "$wait"
            else
                back_up
                remove_old
            fi
        done
        ;;
    now)
        back_up
        remove_old
        ;;
    wal)
        mkdir -p /backups/wal
        pg_receivewal --directory=/backups/wal --slot=backup --create-slot --if-not-exists
        exec pg_receivewal --directory=/backups/wal --slot=backup --synchronous
        ;;
    new-slot)
        pg_receivewal --slot=backup --drop-slot
        pg_receivewal --slot=backup --create-slot
        ;;
    check-base)
        # One hour more, to make it.
        [ "$(seconds_until_due)" -gt -3600 ] && [ -n "$(bases)" ]
        ;;
    check-wal)
        segment=$(current_segment)
        [ -e "/backups/wal/$segment" ] || [ -e "/backups/wal/$segment.partial" ]
        ;;
    *)
        sed -n '2,7s/^# //p' "$0" >&2
        exit 2
        ;;
esac
