SELECT * EXCEPT (payload), payload.push_id.:Int64 AS push_id, payload.pull_request.merged.:Bool AS merged FROM github ORDER BY id
