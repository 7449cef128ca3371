-- Loads the files of all hosts into DuckDB, each once however often this is run:
--   cd /srv/accounting            # HOST/START_END.csv, HOST/intervals.jsonl
--   duckdb accounting.duckdb < duckdb.sql
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
    host VARCHAR, file VARCHAR, "start" TIMESTAMPTZ, "end" TIMESTAMPTZ,
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
INSERT INTO traffic BY NAME
    SELECT host, name AS file, rows.* EXCLUDE (filename)
    FROM read_csv('*/*.csv', header = true, delim = ',', all_varchar = true,
                  union_by_name = true, filename = true) AS rows
    JOIN new_files ON rows.filename = new_files.path;
INSERT INTO files SELECT host, name FROM new_files;
INSERT INTO intervals BY NAME
    SELECT parse_path(filename)[-2] AS host, file, "start", "end",
           source_packets, dest_packets, lost, undecodable
    FROM read_json('*/intervals.jsonl', format = 'newline_delimited', filename = true,
                   columns = {file: 'VARCHAR', "start": 'TIMESTAMPTZ', "end": 'TIMESTAMPTZ',
                              source_packets: 'UBIGINT', dest_packets: 'UBIGINT',
                              lost: 'UBIGINT', undecodable: 'UBIGINT'})
    ON CONFLICT DO NOTHING;
DROP TABLE new_files;
COMMIT;
