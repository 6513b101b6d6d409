CREATE TABLE nginx (
  time DateTime('UTC'),
  host LowCardinality(String),
  remote_addr IPv6,
  method LowCardinality(String),
  uri String,
  status UInt16,
  body_bytes_sent UInt64,
  request_time Float32,
  upstream_time Nullable(Float32),
  referer String,
  user_agent String,
  request_id String,
  rest Map(LowCardinality(String), String)
) ENGINE = MergeTree ORDER BY (host, time)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
