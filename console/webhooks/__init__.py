"""Webhooks: subscriptions to case events, and their deliveries."""
