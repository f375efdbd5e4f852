#!/bin/bash
# The image runs it once, in a new cluster: it creates the roles of the broker and of the backups.
set -euo pipefail

psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    --set broker_password="$(cat /run/secrets/broker_password)" \
    --set backup_password="$(cat /run/secrets/backup_password)" <<'SQL'
CREATE ROLE broker LOGIN PASSWORD :'broker_password';
CREATE DATABASE broker OWNER broker;
REVOKE CONNECT ON DATABASE broker FROM PUBLIC;
CREATE ROLE backup LOGIN REPLICATION PASSWORD :'backup_password';
SQL
