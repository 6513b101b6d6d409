SELECT client_id, user_id, time, event.name AS name, event.params AS params, user_properties, consent FROM ga4 ARRAY JOIN events AS event ORDER BY client_id, name
