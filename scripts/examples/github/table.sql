CREATE TABLE github (
  id UInt64,
  type LowCardinality(String),
  created_at DateTime('UTC'),
  public Bool,
  actor_id UInt64,
  actor LowCardinality(String),
  repo_id UInt64,
  repo String,
  org LowCardinality(String),
  action LowCardinality(String),
  ref String,
  number Nullable(UInt32),
  title String,
  labels Array(Tuple(name String, color FixedString(6))),
  commits UInt16,
  payload JSON
) ENGINE = MergeTree ORDER BY (type, repo, created_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
