-- name: PutOutbox :exec
INSERT INTO outbox_events (id, event_type, account_id, payload, created_at) VALUES ($1, $2, $3, $4, $5);
