SELECT time, host, remote_addr, method, uri, status, body_bytes_sent, request_time, upstream_time, referer, user_agent, request_id, rest FROM nginx ORDER BY time
