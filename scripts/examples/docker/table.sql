CREATE TABLE docker (
  time DateTime64(9, 'UTC'),
  stream Enum8('stdout' = 1, 'stderr' = 2),
  log String,
  tag LowCardinality(String),
  attrs Map(String, String)
) ENGINE = MergeTree ORDER BY time
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
