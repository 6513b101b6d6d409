CREATE TABLE amplitude (
  insert_id String,
  event_type LowCardinality(String),
  user_id Nullable(String),
  device_id String,
  time DateTime64(3, 'UTC'),
  session_id Int64,
  platform LowCardinality(String),
  country LowCardinality(String),
  price Nullable(Decimal(18, 4)),
  event_properties JSON,
  user_properties String,
  received DateTime64(3, 'UTC')
) ENGINE = MergeTree ORDER BY (event_type, time)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
