-- The largest prefixes in the archives of all hosts, HOST/DAY.parquet:
--   cd /srv/accounting; duckdb < archive-duckdb.sql
SELECT IP, sum(DestBytes) AS "in", sum(SourceBytes) AS "out"
FROM read_parquet('*/*.parquet')
WHERE Time >= TIMESTAMPTZ '2026-11-01 00:00:00Z' AND Time < TIMESTAMPTZ '2026-12-01 00:00:00Z'
GROUP BY IP ORDER BY "in" + "out" DESC LIMIT 20;
