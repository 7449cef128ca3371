-- Loads the files of all hosts into ClickHouse, each once, however often this runs or is interrupted:
--   cd /srv/accounting            # HOST/START_END.csv, HOST/intervals.jsonl
--   clickhouse local --path /var/lib/accounting --queries-file clickhouse.sql
-- In a server, file() reads below its user_files_path.
-- SELECT … FROM traffic FINAL merges rows that exist twice for a while.
CREATE TABLE IF NOT EXISTS traffic (
    host LowCardinality(String), file String,
    Time DateTime('UTC'), IP String,
    SourceBytes UInt64, SourcePackets UInt64, DestBytes UInt64, DestPackets UInt64,
    -- With a cross-check.
    TcSourceBytes Nullable(UInt64), TcSourcePackets Nullable(UInt64),
    TcDestBytes Nullable(UInt64), TcDestPackets Nullable(UInt64),
    Verdict LowCardinality(Nullable(String))
) ENGINE = ReplacingMergeTree ORDER BY (host, file, IP);

CREATE TABLE IF NOT EXISTS files (host String, file String)
    ENGINE = ReplacingMergeTree ORDER BY (host, file);

CREATE TABLE IF NOT EXISTS intervals (
    host LowCardinality(String), file String, start DateTime64(6, 'UTC'), end DateTime64(6, 'UTC'),
    source_packets UInt64, dest_packets UInt64, lost UInt64, undecodable UInt64
) ENGINE = ReplacingMergeTree ORDER BY (host, file);

INSERT INTO traffic
    SELECT extract(_path, '([^/]+)/[^/]+$') AS host, _file AS file, *
    FROM file('*/*.csv', CSVWithNames, 'Time DateTime(''UTC''), IP String,
              SourceBytes UInt64, SourcePackets UInt64, DestBytes UInt64, DestPackets UInt64,
              TcSourceBytes Nullable(UInt64), TcSourcePackets Nullable(UInt64),
              TcDestBytes Nullable(UInt64), TcDestPackets Nullable(UInt64),
              Verdict LowCardinality(Nullable(String))')
    WHERE (host, file) NOT IN (SELECT host, file FROM files);

-- Behind the rows: a file whose rows are not all there is loaded again the next time.
INSERT INTO files SELECT DISTINCT host, file FROM traffic;

-- A power cut may have left half a line, and rsync may come while one is written: it is passed over.
INSERT INTO intervals
    SELECT extract(_path, '([^/]+)/[^/]+$') AS host, JSONExtractString(line, 'file') AS file,
           parseDateTime64BestEffort(JSONExtractString(line, 'start'), 6, 'UTC'),
           parseDateTime64BestEffort(JSONExtractString(line, 'end'), 6, 'UTC'),
           JSONExtractUInt(line, 'source_packets'), JSONExtractUInt(line, 'dest_packets'),
           JSONExtractUInt(line, 'lost'), JSONExtractUInt(line, 'undecodable')
    FROM file('*/intervals.jsonl', LineAsString, 'line String')
    WHERE isValidJSON(line) AND (host, file) NOT IN (SELECT host, file FROM intervals);
