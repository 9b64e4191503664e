"""A watched folder: CSV, JSON lines, line protocol and Parquet files, read on from where they were left."""
