-- The largest prefixes in the archives of all hosts, HOST/DAY.parquet:
--   cd /srv/accounting; clickhouse local --queries-file archive-clickhouse.sql
SELECT IP, sum(DestBytes) AS in, sum(SourceBytes) AS out
FROM file('*/*.parquet', Parquet)
WHERE Time >= toDateTime64('2026-11-01 00:00:00', 6, 'UTC') AND Time < toDateTime64('2026-12-01 00:00:00', 6, 'UTC')
GROUP BY IP ORDER BY in + out DESC LIMIT 20;
