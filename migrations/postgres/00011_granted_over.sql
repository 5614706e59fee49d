-- A grant may be forced over a subscription that the provider manages. It goes on
-- giving the plan beside that one, and beside no other that is paid.

-- +goose Up
-- The id of the subscription that an admin has overruled; null: none was.
ALTER TABLE subscriptions ADD COLUMN granted_over TEXT;
UPDATE subscriptions SET granted_over = (
    SELECT paid.id FROM subscriptions paid
    WHERE paid.account_id = subscriptions.account_id AND paid.source = 'stripe' AND paid.started_at < subscriptions.started_at
    ORDER BY paid.started_at DESC, paid.id DESC LIMIT 1
) WHERE is_current AND source <> 'stripe';

-- +goose Down
ALTER TABLE subscriptions DROP COLUMN granted_over;
