# The largest prefixes in the archives of all hosts, HOST/DAY.parquet, with Polars.
from datetime import datetime, timezone

import polars as pl

month = [datetime(2026, 11, 1, tzinfo=timezone.utc), datetime(2026, 12, 1, tzinfo=timezone.utc)]
totals = (
    pl.scan_parquet("*/*.parquet")
    .filter(pl.col("Time").is_between(*month, closed="left"))
    .group_by("IP")
    .agg(pl.sum("DestBytes").alias("in"), pl.sum("SourceBytes").alias("out"))
    .sort(pl.col("in") + pl.col("out"), descending=True)
    .head(20)
    .collect()
)
print(totals)
