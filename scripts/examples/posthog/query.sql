SELECT * FROM posthog ORDER BY uuid
