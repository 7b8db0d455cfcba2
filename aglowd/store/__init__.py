"""The store: SQLite, one writer, one transaction per verb. Nothing outside this room knows SQL."""
