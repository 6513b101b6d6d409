CREATE TABLE cloudevents (
  id String,
  source LowCardinality(String),
  type LowCardinality(String),
  subject Nullable(String),
  time DateTime64(3, 'UTC'),
  order_id UInt64,
  data String,
  extensions Map(String, String),
  raw String CODEC(ZSTD(3))
) ENGINE = MergeTree ORDER BY (type, time)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
