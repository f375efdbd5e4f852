#!/bin/bash
# A backup drill when none has gone well for as long as DRILL_EVERY_SECONDS; after one that failed,
# another within the hour.
set -euo pipefail

metrics=/metrics/broker_drill.prom

seconds_until_due() {
    if [ -e "$metrics" ]; then
        echo $((DRILL_EVERY_SECONDS - $(date +%s) + $(stat --format=%Y "$metrics")))
    else
        echo 0
    fi
}

while true; do
    wait=$(seconds_until_due)
    if [ "$wait" -gt 0 ]; then
        sleep "$wait"
        continue
    fi
    # Of one that was killed.
    rm -rf /scratch/drill-*
    if ! broker drill --backups /backups --textfile "$metrics"; then
        sleep "$((DRILL_EVERY_SECONDS < 3600 ? DRILL_EVERY_SECONDS : 3600))"
    fi
done
