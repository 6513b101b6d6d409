CREATE TABLE ga4 (
  client_id String,
  user_id String,
  time DateTime64(6, 'UTC'),
  events Array(Tuple(name String, params Map(String, String))),
  user_properties Map(String, String),
  consent LowCardinality(String)
) ENGINE = MergeTree ORDER BY (client_id, time)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
