"""Building blocks of every Stellwerk service; see docs/architecture.md section 3."""
