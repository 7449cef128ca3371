# The largest prefixes in the archives of all hosts, HOST/DAY.parquet, with pandas.
from glob import glob

import pandas as pd

columns = ["IP", "DestBytes", "SourceBytes"]
month = [("Time", ">=", pd.Timestamp("2026-11-01", tz="UTC")), ("Time", "<", pd.Timestamp("2026-12-01", tz="UTC"))]
days = [pd.read_parquet(path, columns=columns, filters=month) for path in glob("*/*.parquet")]
totals = pd.concat(days).groupby("IP").sum().rename(columns={"DestBytes": "in", "SourceBytes": "out"})
totals = totals.assign(all=totals["in"] + totals["out"]).nlargest(20, "all").drop(columns="all")
print(totals)
