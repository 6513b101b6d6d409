CREATE TABLE segment (
  message_id String,
  type LowCardinality(String),
  event LowCardinality(String),
  user_id String,
  anonymous_id String,
  timestamp DateTime64(3, 'UTC'),
  ip String,
  page_url String,
  user_agent String,
  library LowCardinality(String),
  properties JSON,
  traits Map(String, String),
  context String CODEC(ZSTD(3)),
  rest Map(String, String)
) ENGINE = MergeTree ORDER BY (type, event, timestamp)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
