"""PostgreSQL: connections, their shares and time-outs, migrations, and queries in SQL files."""
