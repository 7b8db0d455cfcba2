"""The workload as each peer's own documentation would have it written; these run in the peers' environments."""
