#!/bin/bash
# restore [TIME]: restore the newest base backup, or the newest from before TIME, and the log after it
# into PostgreSQL's data folder. The old data is moved aside. TIME is like '2026-01-31 14:05:00+00'.
set -euo pipefail

time=${1:-}
new=$PGDATA.restoring
log=/tmp/postgres.log
stamp=$(date --utc +%Y%m%dT%H%M%SZ)

fail() {
    echo "restore: $1" >&2
    exit 1
}

answers() {
    local status=0
    pg_isready --quiet --host=postgres || status=$?
    # 0: it accepts connections; 1: it refuses them because it starts or stops.
    [ "$status" -le 1 ]
}

refuse_live() {
    if answers; then
        fail "PostgreSQL runs. Nothing was changed. Stop it first: docker compose stop postgres"
    fi
    if [ -e "$PGDATA/postmaster.pid" ]; then
        fail "$PGDATA/postmaster.pid is there: a server runs on this volume, or was killed. Nothing was \
changed. If you are sure that none runs: docker compose run --rm --entrypoint rm restore $PGDATA/postmaster.pid"
    fi
}

# Sorted by name, which is the start time: 20260131T020000Z.
choose() {
    local before=99991231T000000Z
    if [ -n "$time" ]; then
        before=$(date --utc --date="$time" +%Y%m%dT%H%M%SZ) || fail "$time is not a time"
    fi
    find /backups/base -mindepth 1 -maxdepth 1 -name '2*Z' -printf '%f\n' | sort |
        awk -v before="$before" '$1 < before' | tail -n 1
}

start() {
    local more=()
    if [ -n "$time" ]; then more=(-c "recovery_target_time=$time"); fi
    postgres -D "$new" -c listen_addresses= -c unix_socket_directories=/tmp -c ssl=off \
        -c archive_mode=off -c hot_standby=off -c recovery_target_action=promote \
        -c "restore_command=cp /backups/wal/%f %p 2>/dev/null || cp /backups/wal/%f.partial %p 2>/dev/null" \
        "${more[@]}" >"$log" 2>&1 &
    server=$!
}

# It accepts connections only after it has replayed the log and promoted itself.
recover() {
    touch "$new/recovery.signal"
    start
    until pg_isready --quiet --host=/tmp; do
        if ! kill -0 "$server" 2>/dev/null; then
            sed -n '/the database system is/d; s/.*\(FATAL\|PANIC\): */restore: PostgreSQL: /p' "$log" >&2
            fail "PostgreSQL can't recover; nothing was changed"
        fi
        sleep 0.2
    done
    kill -INT "$server"
    wait "$server"
}

refuse_live
[ -d /backups/base ] || fail "/backups/base is not there: nothing was backed up"
base=$(choose)
[ -n "$base" ] || fail "there is no base backup from before ${time:-now}"

trap 'rm -rf "$new"' EXIT
echo "restoring /backups/base/$base"
mkdir -p "$(dirname "$new")"
rm -rf "$new"
cp -a "/backups/base/$base" "$new"
chmod 0700 "$new"
pg_verifybackup --quiet "$new"
recover

refuse_live
if [ -d "$PGDATA" ]; then
    mv "$PGDATA" "$PGDATA.until-$stamp"
    echo "the previous data is now in $PGDATA.until-$stamp"
fi
sync -f "$new"
mv "$new" "$PGDATA"
# The restored server has a new timeline: its backups start again.
mkdir "/backups/until-$stamp"
mv /backups/base "/backups/until-$stamp/base"
if [ -d /backups/wal ]; then mv /backups/wal "/backups/until-$stamp/wal"; fi
echo "the backups used are now in /backups/until-$stamp"
grep --only-matching --extended-regexp \
    '(last completed transaction was at log time|recovery stopping).*' "$log" || true
echo "restored"
