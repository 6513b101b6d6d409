SELECT * FROM cloudevents ORDER BY id
