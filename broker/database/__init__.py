"""PostgreSQL: the pool, the schema's migrations, and the one place where its errors get a name."""
