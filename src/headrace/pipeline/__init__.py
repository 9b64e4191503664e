"""The shard state machine and its operators."""
