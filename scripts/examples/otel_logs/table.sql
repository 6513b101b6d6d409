CREATE TABLE otel_logs (
  timestamp DateTime64(9, 'UTC'),
  observed DateTime64(9, 'UTC'),
  trace_id String,
  span_id String,
  severity_text LowCardinality(String),
  severity_number UInt8,
  service LowCardinality(String),
  body String,
  resource Map(LowCardinality(String), String),
  attributes Map(LowCardinality(String), String),
  status Nullable(UInt16),
  duration_ms Nullable(Float64)
) ENGINE = MergeTree ORDER BY (service, timestamp)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
