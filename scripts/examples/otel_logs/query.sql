SELECT * FROM otel_logs ORDER BY timestamp
