"""Webhooks: who is notified, and the deliveries."""
