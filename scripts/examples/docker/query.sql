SELECT * FROM docker ORDER BY time
