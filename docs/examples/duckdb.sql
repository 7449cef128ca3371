-- Loads the files of all hosts into DuckDB, each once however often this is run:
--   cd /srv/accounting            # HOST/START_END.csv, HOST/intervals.jsonl
--   duckdb -bail accounting.duckdb < duckdb.sql
-- Without -bail, duckdb continues after an error, and would note files whose rows are missing. There must be a file of
-- each kind.
CREATE TABLE IF NOT EXISTS traffic (
    host VARCHAR NOT NULL, file VARCHAR NOT NULL,
    "Time" TIMESTAMP NOT NULL, "IP" VARCHAR NOT NULL,
    "SourceBytes" UBIGINT, "SourcePackets" UBIGINT, "DestBytes" UBIGINT, "DestPackets" UBIGINT,
    -- With a cross-check.
    "TcSourceBytes" UBIGINT, "TcSourcePackets" UBIGINT, "TcDestBytes" UBIGINT, "TcDestPackets" UBIGINT,
    "Verdict" VARCHAR
);
CREATE TABLE IF NOT EXISTS files (host VARCHAR, file VARCHAR, PRIMARY KEY (host, file));
CREATE TABLE IF NOT EXISTS intervals (
    host VARCHAR, file VARCHAR, "start" TIMESTAMP, "end" TIMESTAMP,  -- UTC, as "Time" is with --utc.
    source_packets UBIGINT, dest_packets UBIGINT, lost UBIGINT, undecodable UBIGINT,
    PRIMARY KEY (host, file)
);

BEGIN TRANSACTION;
-- A file is whole from the moment that it has its name. Those that get it from here on are for the next time.
CREATE TEMP TABLE new_files AS
    SELECT * FROM (
        SELECT file AS path, parse_path(file)[-2] AS host, parse_filename(file) AS name
        FROM glob('*/*.csv')
    ) AS found
    ANTI JOIN files ON files.host = found.host AND files.file = found.name;
-- One that is known already where there is none, since a list must not be empty; the join leaves it out.
SET VARIABLE paths = coalesce((SELECT list(path) FROM new_files), (SELECT [min(file)] FROM glob('*/*.csv')));
INSERT INTO traffic BY NAME
    SELECT host, name AS file, rows.* EXCLUDE (filename)
    FROM read_csv(getvariable('paths'), auto_detect = false, header = true, null_padding = true, filename = true,
                  columns = {"Time": 'TIMESTAMP', "IP": 'VARCHAR',
                             "SourceBytes": 'UBIGINT', "SourcePackets": 'UBIGINT',
                             "DestBytes": 'UBIGINT', "DestPackets": 'UBIGINT',
                             "TcSourceBytes": 'UBIGINT', "TcSourcePackets": 'UBIGINT',
                             "TcDestBytes": 'UBIGINT', "TcDestPackets": 'UBIGINT', "Verdict": 'VARCHAR'}) AS rows
    JOIN new_files ON rows.filename = new_files.path;
INSERT INTO files SELECT host, name FROM new_files;
-- A power cut may have left half a line, and rsync may come while one is written: it is passed over.
INSERT INTO intervals BY NAME
    SELECT parse_path(filename)[-2] AS host, file, "start" AT TIME ZONE 'UTC' AS "start",
           "end" AT TIME ZONE 'UTC' AS "end", source_packets, dest_packets, lost, undecodable
    FROM read_json('*/intervals.jsonl', format = 'newline_delimited', filename = true, ignore_errors = true,
                   columns = {file: 'VARCHAR', "start": 'TIMESTAMPTZ', "end": 'TIMESTAMPTZ',
                              source_packets: 'UBIGINT', dest_packets: 'UBIGINT',
                              lost: 'UBIGINT', undecodable: 'UBIGINT'})
    WHERE file IS NOT NULL
    ON CONFLICT DO NOTHING;
DROP TABLE new_files;
COMMIT;
