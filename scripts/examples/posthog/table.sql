CREATE TABLE posthog (
  uuid UUID,
  event LowCardinality(String),
  distinct_id String,
  timestamp DateTime64(6, 'UTC'),
  current_url String,
  lib LowCardinality(String),
  screen_width UInt16,
  person Map(String, String),
  ip String,
  properties String CODEC(ZSTD(3))
) ENGINE = MergeTree ORDER BY (event, timestamp)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
