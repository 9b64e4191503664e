"""OPC UA: subscriptions and bulk reads of servers' variables."""
