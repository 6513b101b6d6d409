SELECT * EXCEPT (request_id, received) FROM web_hits ORDER BY event_time
